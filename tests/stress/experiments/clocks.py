"""D.4: daemons whose clocks are wrong, and jobs that are due at awkward moments."""

import asyncio
from pathlib import Path

from tests.stress.clocks import drifting, lying
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import DEFAULT_TERMS, FALSE_RESCUES, completed

AWKWARD = """
[job.comes_back]
python = "tests.stress.jobs:comes_back"
retry = { first = "400ms", max = "400ms" }
deadline = "1h"
"""
ENQUEUE = """
    select worker.enqueue('comes_back', delay => d * interval '100 ms', expires_at => worker.now() + interval '1 min')
    from generate_series(0, $1) d
"""
# What a snooze of 300 ms, said by a daemon, became on the row: the difference to the database's clock at that moment.
SNOOZES = """
    select coalesce(max(abs(extract(epoch from scheduled_at - at) - 0.3)), 0)::float8 as wrong, count(*)
    from evidence.hist
    where old_status = 'running' and new_status = 'pending' and new_attempt < old_attempt and scheduled_at > at
"""
BY_PROCESS = """
    select p.pid, count(*) from evidence.hist h join worker.process p on p.id = h.old_process
    where h.old_status = 'running' group by 1
"""
LATE = """
    select percentile_cont(0.99) within group (order by extract(epoch from at - scheduled_at))::float8
    from evidence.hist where old_status = 'pending' and new_status = 'running'
"""
STEP = 0.2  # seconds by which a snooze may differ, on a busy machine


@experiment("40-wrong-clocks", fast=6, quiet=True)
async def wrong_clocks(place: Place, report: Report) -> None:
    """A day behind, a day ahead, 20 times too fast, a step in the middle, a leap day, the other side of the earth."""
    moving = place.folder / "clock"
    moving.write_text("+0")
    clocks = {
        "a day behind": lying("-1d"),
        "a day ahead": lying("+1d"),
        "drifting": drifting(20),
        "stepping": lying("", FAKETIME_TIMESTAMP_FILE=str(moving), FAKETIME_NO_CACHE="1"),
        "leap day": lying("@2028-02-29 23:59:57", TZ="Pacific/Kiritimati"),
        "summer time": lying("@2027-03-28 01:59:57", TZ="Europe/Berlin"),
    }
    config = place.configure(AWKWARD, DEFAULT_TERMS)
    daemons = {name: place.spawn(config, more=clock) for name, clock in clocks.items()}
    await place.started(*daemons.values())
    for step in ("+3h", "-3h", "+0"):
        await place.connection.execute(ENQUEUE, 30)
        await asyncio.sleep(0.6)
        _step(moving, step)
    await _until_all_have_worked(place, len(clocks))
    report.expect(await place.settled(30), "jobs are not final after 30 s")
    await completed(place, report)
    report.figures["false_rescues"] = await place.connection.fetchval(FALSE_RESCUES)
    report.expect(report.figures["false_rescues"] == 0, "a daemon that lived was called dead")
    await _told(place, report, {name: each.pid for name, each in daemons.items()})
    await place.judge(report)


def _step(clock: Path, to: str) -> None:
    """Whole or not at all: a daemon reads it at any moment."""
    new = clock.with_suffix(".new")
    new.write_text(to)
    new.replace(clock)


async def _until_all_have_worked(place: Place, count: int) -> None:
    for _ in range(20):
        if len(await place.connection.fetch(BY_PROCESS)) == count:
            return
        await place.connection.execute(ENQUEUE, 10)
        await asyncio.sleep(0.5)


async def _told(place: Place, report: Report, pids: dict[str, int]) -> None:
    """Each did its share, and what each said of time was said in durations."""
    shares = dict(await place.connection.fetch(BY_PROCESS))
    for name, pid in pids.items():
        report.injected += shares.get(pid, 0) > 0
        report.figures[name.replace(" ", "_")] = shares.get(pid, 0)
    snoozes = await place.connection.fetchrow(SNOOZES)
    report.expect(snoozes["count"] > 0, "no job was snoozed")
    report.expect(snoozes["wrong"] < STEP, f"a snooze of 0.3 s was {snoozes['wrong']:.2f} s wrong")
    report.figures["late_p99_s"] = round(await place.connection.fetchval(LATE), 3)
