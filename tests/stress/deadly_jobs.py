"""Coroutines that take their process along, or try to."""

import asyncio
import ctypes
import os
import resource
from pathlib import Path

from tests.stress.jobs import note
from worker import Context

STARTS = "starts"
MEBIBYTE = 1 << 20


async def quits(context: Context) -> None:
    """Ends the process without a word."""
    await _began(context)
    os._exit(3)


async def crashes(context: Context) -> None:
    """Reads where nothing is."""
    await _began(context)
    ctypes.string_at(0)


async def burns(context: Context) -> None:
    """Uses up the processor time that the process may have."""
    await _began(context)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (1, most))
    while True:
        pass


async def hoards(context: Context) -> None:
    """Takes all the memory that the process may have: a MemoryError, in here and perhaps elsewhere."""
    await _began(context)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_held() + 64 * MEBIBYTE, before[1]))
    hoard = []
    try:
        while True:
            hoard.append(bytearray(MEBIBYTE))
            await asyncio.sleep(0)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _held() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


async def _began(context: Context) -> None:
    note(Path(context.settings["folder"]) / STARTS, f"{context.job.id} {context.job.claim}")
    await asyncio.sleep(0.02)  # so that those beside it have begun as well
