"""D.1: jobs that kill the process they run in, in a queue of good ones."""

from collections import Counter

from tests.stress.deadly_jobs import STARTS
from tests.stress.experiment import Report, experiment
from tests.stress.jobs import lines
from tests.stress.place import Place
from tests.stress.supervisor import supervised
from tests.stress.workload import account, produce_free

DEADLY = ("quits", "crashes", "burns")
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
    for name in (*DEADLY, "hoards")
)


@experiment("6-suicides", fast=7, quiet=True)
async def suicides(place: Place, report: Report) -> None:
    """Four ways to die of a job: each ends failed after at most four starts, the good ones are done."""
    async with supervised(place, place.configure(TYPES)) as supervisor:
        await place.started(supervisor.daemon)
        await produce_free(place, GOOD // 3, ms=20)
        bad = {await place.connection.fetchval("select worker.enqueue($1)", name): 5 for name in DEADLY}
        await produce_free(place, GOOD // 3, ms=50)
        brief = "select worker.enqueue('quits', max_attempts => 2)"
        bad[await place.connection.fetchval(brief)] = 2
        hoarder = await place.connection.fetchval("select worker.enqueue('hoards')")
        await produce_free(place, GOOD // 3, ms=300)
        report.expect(await place.settled(60), "not all jobs are final after 60 s")
    report.injected = len(supervisor.codes)
    ended = {row["id"]: row for row in await place.connection.fetch("select * from worker.job_queue")}
    starts = Counter(int(line[0]) for line in lines(place.folder, STARTS))
    for job_id, most in bad.items():
        row, began = ended[job_id], starts[job_id]
        found = (row["job_type"], row["status"], row["finish_reason"], began)
        report.expect(found[1:3] == ("failed", "poison") and 1 <= began <= min(most, MOST_STARTS), f"{found}")
    found = (ended[hoarder]["status"], ended[hoarder]["finish_reason"])
    report.expect(found in (("failed", "exhausted"), ("failed", "poison")), f"hoards: {found}")
    good = Counter((row["status"], row["rescues"]) for row in ended.values() if row["job_type"] == "free")
    report.expect({status for status, _ in good} == {"completed"}, f"good ones, with their rescues: {dict(good)}")
    report.figures["deaths"] = dict(Counter(supervisor.codes))
    report.figures["good_rescues_most"] = max(rescues for _, rescues in good)
    report.figures["good_delay_s"] = round(
        await place.connection.fetchval(
            "select max(extract(epoch from finished_at - created_at)) from worker.job_queue where job_type = 'free'"
        ), 2
    )  # fmt: skip
    report.expect(supervisor.pauses == sorted(supervisor.pauses) or max(supervisor.pauses) >= 1, "no back-off")
    await place.judge(report)
    await account(place, report)
