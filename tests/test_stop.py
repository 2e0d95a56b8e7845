"""Work with something beside it."""

import asyncio
import subprocess
import sys

import pytest

from tests.support import ROOT
from worker.stop import beside


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("side")


async def test_the_side_ends_with_the_work():
    ended: list[str] = []
    await asyncio.wait_for(beside(asyncio.sleep(0.01), forever(ended)), 20)
    assert ended == ["side"]


async def test_an_error_of_the_work_is_raised_as_it_is():
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    ended: list[str] = []
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(beside(fails(), forever(ended)), 20)
    assert ended == ["side"]


@pytest.mark.parametrize("error", [OSError("gone"), None])
async def test_a_side_that_ends_ends_the_work(error):
    async def side() -> None:
        await asyncio.sleep(0)
        if error:
            raise error

    ended: list[str] = []
    with pytest.raises(type(error) if error else RuntimeError):
        await asyncio.wait_for(beside(forever(ended), side()), 20)
    assert ended == ["side"]


async def test_cancelled_it_cancels_both():
    ended: list[str] = []
    task = asyncio.create_task(beside(forever(ended), forever(ended)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert ended == ["side", "side"]


LATE = """
import asyncio, os, signal
from worker.stop import Stop

async def main():
    stop = Stop()
    stop.on_signals()
    stop.no_more()
    for late in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), late)
    await asyncio.sleep(0)

asyncio.run(main())
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_that_comes_too_late_is_not_the_exit_code() -> None:
    assert subprocess.run([sys.executable, "-c", LATE], cwd=ROOT, timeout=60, check=False).returncode == 0
