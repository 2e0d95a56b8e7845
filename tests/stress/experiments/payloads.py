"""D.5: payloads of every size, one by one and ten thousand at once."""

import re

import asyncpg

from tests.stress.experiment import Report, experiment
from tests.stress.place import COMPRESSED, Place
from tests.stress.receivers import Caller, receiving

KIB = 1024
MOST = 64 * KIB
SIZES = (MOST - 100, MOST, MOST + 1, 1 * KIB * KIB, 60 * KIB * KIB, 200 * KIB * KIB)
AT_ONCE = 10_000
LARGE = 60 * KIB
UNITED = 500  # rows of one call
MOST_GROWTH = 80.0  # MB over a daemon that has run small jobs
MOST_UNITED = 400.0  # MB over it, while one call carries 500 rows of 60 KiB
SETTLE_SECONDS = 180.0
# `x` fills the payload to that many bytes; what is random is not squeezed by TOAST, but costs the disk: here it is not.
SIZED = "jsonb_build_object('x', repeat('y', $1::integer - 9))"
WAYS = (
    f"select worker.enqueue('read', {SIZED})",
    f"insert into worker.job_queue (job_type, payload) values ('read', {SIZED})",
    f"select worker.enqueue_many('read', array[{SIZED}, '{{}}'])",
)
WORKER = COMPRESSED.replace("concurrency = 8", "concurrency = 50").replace("prefetch = 8", "prefetch = 50")
TYPES = """
[job.read]
python = "tests.hostile.test_rows:read"
[job.small]
python = "tests.hostile.test_rows:read"
[job.united]
http = "{url}"
coalesce = {{ key = "all", unite = ["tags"] }}
"""


class Swallow:
    """Takes any size; knows how much came."""

    def __init__(self) -> None:
        self.largest = 0

    async def __call__(self, caller: Caller) -> None:
        """One connection of calls."""
        while True:
            head = await caller.asked()
            size = int(re.search(rb"(?i)content-length: *([0-9]+)", head)[1])
            await caller.reader.readexactly(size)
            self.largest = max(self.largest, size)
            await caller.say(b"HTTP/1.1 204 No\r\n\r\n")


@experiment("46-payloads", nightly=18, limit=300)
async def payloads(place: Place, report: Report) -> None:
    """64 KiB to 200 MiB by every way in, then 10,000 of 60 KiB at once: refused at the door, and memory is bounded."""
    receiver = Swallow()
    async with receiving(receiver) as port:
        jobs = TYPES.format(url=f"http://127.0.0.1:{port}/")
        await place.started(place.spawn(place.configure(jobs, worker=WORKER)))
        await place.connection.execute("select worker.enqueue('small') from generate_series(1, 2000)")
        report.expect(await place.settled(SETTLE_SECONDS), "small jobs are not final")
        base = max(place.memory().values())
        for size in SIZES:
            for way in WAYS:
                await _try(place, report, way, size)
        await place.connection.execute(
            f"select worker.enqueue('read', {SIZED}) from generate_series(1, {AT_ONCE})", LARGE
        )
        peak = await _settled(place, report)
        report.figures |= {"base_mb": round(base), "peak_mb": round(peak)}
        report.expect(peak - base < MOST_GROWTH, f"{AT_ONCE} payloads of 60 KiB: from {base:.0f} to {peak:.0f} MB")
        await _unite(place, report, receiver, base)
        await place.judge(report)


async def _try(place: Place, report: Report, way: str, size: int) -> None:
    """One insert; up to the bound it is taken, beyond it is refused and says why, and the session lives on."""
    before = await place.connection.fetchval("select count(*) from worker.job_queue")
    try:
        await place.connection.execute(way, size)
        taken = True
    except asyncpg.PostgresError as error:
        taken = False
        report.expect(error.sqlstate == "23514", f"{size} bytes: refused with {error.sqlstate}, {str(error)[:100]}")
        report.expect(len(str(error)) < 2_000, f"{size} bytes: the error has {len(str(error))} characters")
    after = await place.connection.fetchval("select count(*) from worker.job_queue")
    report.expect(taken == (size <= MOST), f"{size} bytes: taken {taken} by {way[:30]}")
    report.expect((after > before) == taken, f"{size} bytes: {after - before} rows")
    report.injected += 1


async def _settled(place: Place, report: Report) -> float:
    """The most that the daemon held until all was done."""
    peak = 0.0
    for _ in range(int(SETTLE_SECONDS / 0.2)):
        peak = max([peak, *place.memory().values()])
        if await place.settled(0.2):
            return peak
    report.expect(False, "jobs are not final")
    return peak


async def _unite(place: Place, report: Report, receiver: Swallow, base: float) -> None:
    """Rows that coalesce make the largest call there can be."""
    await place.connection.execute(
        "select worker.enqueue('united', jsonb_build_object('tags', jsonb_build_array(n || repeat('y', $1))))"
        f" from generate_series(1, {UNITED}) n",
        LARGE,
    )
    peak = await _settled(place, report)
    report.figures |= {"largest_call_mb": round(receiver.largest / KIB / KIB, 1), "peak_united_mb": round(peak)}
    failed = "select count(*) from worker.job_queue where status <> 'completed'"
    report.expect(await place.connection.fetchval(failed) == 0, "some jobs did not complete")
    report.expect(peak - base < MOST_UNITED, f"one call of {UNITED} rows: from {base:.0f} to {peak:.0f} MB")
