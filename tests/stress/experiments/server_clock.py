"""D.2: the server's clock jumps by an hour, and back."""

import asyncio
import glob
from pathlib import Path

from tests.heart import until
from tests.stress.experiment import Missing, Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import (
    DEFAULT_TERMS,
    FREE_JOBS,
    GRAPH_JOBS,
    errors_said,
    few_attempts,
    flowing,
    server_of_its_own,
    settle_all,
    stocked,
    unharmed,
)
from tests.stress.workload import MIXED, account
from tests.support import server_folder

LIBRARIES = "/usr/lib/*/faketime/libfaketime.so.1"
HOUR = 3600
JUMPS = (HOUR, 0, -HOUR, 0)
HELD_SECONDS = 6.0  # longer than it takes to call somebody dead
READ_SECONDS = 5.0  # until the server has seen the new clock; it looks once a second
GAP_SECONDS = 10.0
AHEAD = "select abs(extract(epoch from clock_timestamp()) - extract(epoch from $1::timestamptz) - $2) < 60"
LATE = "select count(*) from worker.job_queue where status = 'pending' and scheduled_at > clock_timestamp() + '30 min'"
SHELL = """#!/bin/sh
export LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={clock} FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1
exec {program} "$@"
"""


@experiment("27-server-clock", quiet=True, nightly=4)
async def server_clock(outer: Place, report: Report) -> None:
    """Postgres under faketime: an hour forth, back, an hour back, forth; every lease lapses, and nobody dies."""
    with server_folder() as folder, server_folder() as prefix:
        clock = _under_faketime(outer, prefix)
        async with server_of_its_own(outer, folder, prefix=prefix) as place:
            await _create_steps(place)
            config = place.configure(few_attempts(MIXED), DEFAULT_TERMS)
            await place.started(place.spawn(config), place.spawn(config))
            async with stocked(place, 40, FREE_JOBS, GRAPH_JOBS):
                for seconds in JUMPS:
                    await flowing(place)
                    await _jump(place, clock, seconds)
                    report.injected += 1
                    await _goes_on(place, report, seconds)
            await _jump(place, clock, 2 * HOUR)  # whatever was enqueued in a future is due
            await settle_all(place, report)
            await unharmed(place, report)
            report.figures |= errors_said(place)
            await place.judge(report, "I4", "I14")  # they go by the clock that jumps
            await account(place, report)


def _under_faketime(outer: Place, prefix: Path) -> Path:
    """Binaries that look at a clock of ours; answers with the file that says how far it is off."""
    library = next(iter(glob.glob(LIBRARIES)), None)  # noqa: PTH207 - the pattern is absolute
    if library is None:
        raise Missing("no libfaketime on this machine")
    binaries = prefix / "bin"
    binaries.mkdir(parents=True)
    clock = prefix / "clock"
    clock.write_text("+0")
    for name in ("postgres", "initdb"):
        program = outer.server.prefix / "bin" / name
        (binaries / name).write_text(SHELL.format(library=library, clock=clock, program=program))
        (binaries / name).chmod(0o755)
    for each in (prefix, binaries):
        each.chmod(0o755)
    clock.chmod(0o644)
    return clock


async def _create_steps(place: Place) -> None:
    """Without a sleep: one that is under way when the clock goes back lasts an hour longer, and is not ours."""
    for name in "abcd":
        await place.connection.execute(
            f"create function step_{name}(job_id bigint) returns void language sql as"
            f" $$ select evidence.step(job_id, '{name}', 0) $$"
        )


async def _jump(place: Place, clock: Path, seconds: int) -> None:
    before = await place.connection.fetchval("select clock_timestamp()")
    further = seconds - _set(clock, seconds)
    await until(place.connection, AHEAD, before, further, seconds=READ_SECONDS)


def _set(clock: Path, seconds: int) -> int:
    """Turn the clock; answers with how many seconds it was off before."""
    before = int(clock.read_text())
    clock.write_text(f"{seconds:+d}")
    return before


async def _goes_on(place: Place, report: Report, seconds: int) -> None:
    """New jobs are run, nobody is called dead; what was due in another time waits for it."""
    try:
        gap = await flowing(place, GAP_SECONDS)
    except TimeoutError:
        gap = float("inf")
    report.expect(gap <= GAP_SECONDS, f"no job was done for {GAP_SECONDS:g} s after the clock went to {seconds:+d} s")
    report.figures["to_first_job_s"] = max(round(gap, 2), report.figures.get("to_first_job_s", 0.0))
    await asyncio.sleep(HELD_SECONDS)
    late = await place.connection.fetchval(LATE)
    report.figures["wait_for_their_time"] = max(late, report.figures.get("wait_for_their_time", 0))
