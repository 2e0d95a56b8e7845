"""Coroutines without manners: they do not end when they are told to."""

import asyncio
import time
from pathlib import Path

from tests.stress.jobs import OVERLAPS, held, note
from worker import Context

ALIVE = "alive"  # job, claim, when: said again and again


async def stubborn(context: Context) -> None:
    """Catches every cancellation and goes on."""
    folder = Path(context.settings["folder"])
    with held(folder / f"job-{context.job.id}", folder / OVERLAPS, context):
        end = time.monotonic() + context.payload["ms"] / 1000
        while time.monotonic() < end:
            try:
                _say(folder, context)
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue


async def threaded(context: Context) -> None:
    """Ends at once, and leaves a thread behind that does not."""
    folder = Path(context.settings["folder"])
    with held(folder / f"job-{context.job.id}", folder / OVERLAPS, context):
        await asyncio.to_thread(_sleep, folder, context)


def _sleep(folder: Path, context: Context) -> None:
    end = time.monotonic() + context.payload["ms"] / 1000
    while time.monotonic() < end:
        _say(folder, context)
        time.sleep(0.05)


def _say(folder: Path, context: Context) -> None:
    note(folder / ALIVE, f"{context.job.id} {context.job.claim} {time.time():.3f}")


async def orphans(context: Context) -> None:
    """Leaves children behind whose parent is gone before them, and waits for one of its own, whose end it must hear."""
    await asyncio.create_subprocess_shell("for i in 1 2 3; do (sleep 1.2) & done; (sleep 0.6; exit 3) & exit 0")
    own = await asyncio.create_subprocess_shell("sleep 1.5; exit 7")
    assert await own.wait() == 7, own.returncode
