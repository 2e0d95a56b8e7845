"""Coroutines that fail, hog and leak, for the experiments that need such."""

import asyncio
import os
import re
import threading
import time
from pathlib import Path

from tests.stress.jobs import free, note
from worker import Context

BROKEN = "broken"  # while this file is there, `fragile` fails
STARTS = "starts"  # (job, attempt, when), by `fragile`
HOGS = "hogs"  # (job, attempt, begin | end, when), by `hog`
LEAKED: list[object] = []


async def flaky(context: Context) -> object:
    """Fails at its first attempt, then works a little."""
    if context.job.attempt == 1:
        raise RuntimeError("not yet")
    return await free(context)


async def fragile(context: Context) -> None:
    """Fails while something is broken."""
    folder = Path(context.settings["folder"])
    note(folder / STARTS, f"{context.job.id} {context.job.attempt} {time.time()}")
    if (folder / BROKEN).exists():
        raise RuntimeError("something is broken")


async def hog(context: Context) -> object:
    """At its first attempt keeps the interpreter to itself, in one call that lets no thread of this process get on."""
    note(_noted(context), f"{context.job.id} {context.job.attempt} begin {time.time()}")
    if context.job.attempt == 1:
        _hold(context.payload["how"], context.payload["seconds"])
    note(_noted(context), f"{context.job.id} {context.job.attempt} end {time.time()}")
    return {"claim": context.job.claim}


def _noted(context: Context) -> Path:
    return Path(context.settings["folder"]) / HOGS


def _hold(how: str, seconds: float) -> None:
    size, took = 1, 0.0
    while took < seconds:  # each call is longer than the last; of the short ones nobody need know
        began = time.monotonic()
        if how == "pattern":
            re.match(r"(a+)+$", "a" * (16 + size) + "b")
        else:
            number = 3 ** (20_000 * 2**size)
            del number
        took, size = time.monotonic() - began, size + 1


async def leak(context: Context) -> None:
    """Leaves behind a thread, a file or memory."""
    what = context.payload["what"]
    if what == "thread":
        thread = threading.Thread(target=threading.Event().wait, daemon=True)
        thread.start()
    elif what == "file":
        LEAKED.append(os.open("/dev/null", os.O_RDONLY))
    else:
        LEAKED.append(bytearray(os.urandom(20_000)))


async def nested(context: Context) -> object:
    """Takes a connection, and with it in hand another one, as deep as it is told, and enqueues on the way."""
    return await _deeper(context, context.payload["depth"])


async def _deeper(context: Context, depth: int) -> int:
    async with context.connection() as connection:
        here: int = await connection.fetchval("select $1::integer", depth)
        await asyncio.sleep(0)
        return here + (await _deeper(context, depth - 1) if depth > 1 else 0)
