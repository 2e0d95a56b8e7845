"""D.1: jobs that kill the process they run in, in a queue of good ones."""

from collections import Counter

import asyncpg

from tests.heart import becomes
from tests.stress.deadly_jobs import STARTS
from tests.stress.experiment import Report, experiment
from tests.stress.jobs import lines
from tests.stress.place import Place
from tests.stress.supervisor import supervised
from tests.stress.workload import account, produce_free

# How many attempts each may have. Four starts are the most that any gets.
FEW = {"burns": 1, "crashes": 2, "quits": 5}
MANY = {"burns": 5, "crashes": 5, "quits": 5}
MOST_STARTS = 4
GOOD = 150
DELAYS = 'retry = { first = "200ms", max = "2s" }'
TYPES = f"""
[job.free]
python = "tests.stress.jobs:free"
settings = {{ folder = "{{folder}}" }}
{DELAYS}
""" + "".join(
    f'[job.{name}]\npython = "tests.stress.deadly_jobs:{name}"\nsettings = {{ folder = "{{folder}}" }}\n{DELAYS}\n'
    for name in (*MANY, "hoards")
)


@experiment("6-suicides", fast=5, nightly=8, quiet=True)
async def suicides(place: Place, report: Report) -> None:
    """Four ways to die of a job: each ends failed after at most four starts, the good ones are done."""
    attempts = FEW if report.planned < 8 else MANY
    async with supervised(place, place.configure(TYPES)) as supervisor:
        await place.started(supervisor.daemon)
        await produce_free(place, GOOD // 3, ms=20)
        bad = {}
        for name, most in attempts.items():
            job_id = await place.connection.fetchval("select worker.enqueue($1, max_attempts => $2)", name, most)
            bad[job_id] = most
            if most == 1:  # it would be held to have failed if it had only been there when another killed
                await becomes(lambda first=job_id: starts(place)[first])
            await produce_free(place, GOOD // 6, ms=50)
        hoarder = await place.connection.fetchval("select worker.enqueue('hoards')")
        await produce_free(place, GOOD // 6, ms=300)
        report.expect(await place.settled(60), "not all jobs are final after 60 s")
    report.injected = len(supervisor.codes)
    report.figures["deaths"] = dict(Counter(supervisor.codes))
    report.expect(max(supervisor.pauses) > supervisor.pauses[0], "no back-off")
    ended = {row["id"]: row for row in await place.connection.fetch("select * from worker.job_queue")}
    for job_id, most in bad.items():
        row, began = ended[job_id], starts(place)[job_id]
        found = (row["job_type"], row["status"], row["finish_reason"], began)
        report.expect(found[1:3] == ("failed", "poison") and began <= min(most, MOST_STARTS), f"{found}")
        report.expect(began > 0 or most == 2, f"{row['job_type']} never began: it died of others")
    found = (ended[hoarder]["status"], ended[hoarder]["finish_reason"])
    report.expect(found in (("failed", "exhausted"), ("failed", "poison")), f"hoards: {found}")
    report_good(report, [row for row in ended.values() if row["job_type"] == "free"])
    await place.judge(report)
    await account(place, report)


def report_good(report: Report, good: list[asyncpg.Record]) -> None:
    """All of the good ones were done, and how long the bad ones kept them."""
    lost = Counter((row["status"], row["finish_reason"]) for row in good if row["status"] != "completed")
    report.expect(not lost, f"good ones ended otherwise: {dict(lost)}")
    report.figures["good_rescues_most"] = max(row["rescues"] for row in good)
    delay = max(row["finished_at"] - row["created_at"] for row in good)
    report.figures["good_delay_s"] = round(delay.total_seconds(), 2)


def starts(place: Place) -> Counter[int]:
    """How often each bad job began."""
    return Counter(int(line[0]) for line in lines(place.folder, STARTS))
