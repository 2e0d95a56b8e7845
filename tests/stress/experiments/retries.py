"""D.6: everything fails for a while and then heals, with ten thousand retries on their way."""

import asyncio
import time
from collections import Counter
from itertools import pairwise

from tests.stress.experiment import Report, experiment
from tests.stress.jobs import lines
from tests.stress.misbehaviour import BROKEN, STARTS
from tests.stress.place import COMPRESSED, Place

JOBS = 10_000
BROKEN_SECONDS = 45.0
LONGEST = 40.0  # of a retry's delay
SETTLE_SECONDS = 120.0
MOST = 3.0  # times the mean that a second may carry
WORKER = COMPRESSED.replace("concurrency = 8", "concurrency = 20").replace("prefetch = 8", "prefetch = 100")
FRAGILE = f"""
[job.fragile]
python = "tests.stress.misbehaviour:fragile"
settings = {{ folder = "{{folder}}" }}
retry = {{ first = "{LONGEST:g}s", max = "{LONGEST:g}s", factor = 1, max_attempts = 50 }}
"""
# Each delay that was drawn, as a share of the longest.
DELAYS = """
    select extract(epoch from scheduled_at - at)::float8 / $1 from evidence.hist
    where old_status = 'running' and new_status = 'pending'
"""


@experiment("61-all-fail-then-heal", nightly=1, limit=400)
async def all_fail_then_heal(place: Place, report: Report) -> None:
    """10,000 jobs fail for 45 s, at first all at once; then what broke is mended. No second is overloaded."""
    (place.folder / BROKEN).touch()
    config = place.configure(FRAGILE, worker=WORKER)
    await place.started(place.spawn(config), place.spawn(config))
    await place.connection.execute(f"select worker.enqueue('fragile') from generate_series(1, {JOBS})")
    await asyncio.sleep(BROKEN_SECONDS)
    healed = time.time()
    (place.folder / BROKEN).unlink()
    report.injected = 1
    report.expect(await place.settled(SETTLE_SECONDS), "jobs are not final")
    report.figures["healed_after_s"] = round(time.time() - healed, 1)
    await _judge_delays(place, report)
    _judge_starts(place, report, healed)
    await place.judge(report)
    failed = await place.connection.fetchval("select count(*) from worker.job_queue where status <> 'completed'")
    report.expect(failed == 0, f"{failed} jobs did not complete")


async def _judge_delays(place: Place, report: Report) -> None:
    """Full jitter: every tenth of the longest delay is drawn as often as any other."""
    shares = [row[0] for row in await place.connection.fetch(DELAYS, LONGEST)]
    tenths = Counter(min(int(max(share, 0.0) * 10), 9) for share in shares)
    report.figures["retries"] = len(shares)
    report.figures["tenths"] = [tenths[n] for n in range(10)]
    report.expect(len(shares) >= JOBS, f"only {len(shares)} retries: the experiment showed nothing")
    report.expect(max(shares, default=0) <= 1.001, f"a delay of {max(shares) * LONGEST:.1f} s")
    uneven = [n for n in range(10) if not 0.8 < tenths[n] * 10 / len(shares) < 1.2]
    report.expect(not uneven, f"tenths {uneven} of the delays are drawn too seldom or too often")


def _judge_starts(place: Place, report: Report, healed: float) -> None:
    """The retries as they began: while it was broken, and from then to the last."""
    again = sorted(float(at) for _, attempt, at in lines(place.folder, STARTS) if int(attempt) > 1)
    begun, ended = again[0], again[-1]
    for name, (start, end) in zip(("broken", "healed"), pairwise((begun, healed, ended)), strict=True):
        seconds = Counter(int(at - start) for at in again if start <= at < end)
        mean = sum(seconds.values()) / max(end - start, 1.0)
        busiest = max(seconds.values(), default=0)
        report.figures[f"busiest_second_{name}"] = f"{busiest}, mean {mean:.0f}"
        report.expect(busiest <= MOST * mean, f"{name}: a second carries {busiest} starts, the mean is {mean:.0f}")
