"""D.8: ten minutes each of requests, configurations and payloads that nobody would write."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st

from tests import fuzz
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.web.fuzzing import fuzz as requests
from tests.web.fuzzing import installed, patient
from tests.web.site import standing

SECONDS = 600.0
ROUND = 2_000  # examples
PLANNED = 20_000
REQUESTS = 5_000


def spent(report: Report, planned: int) -> float:
    """Ten minutes; of a smaller plan its part."""
    return SECONDS * min(report.planned / planned, 1.0)


@experiment("82-http", nightly=REQUESTS, limit=SECONDS + 300)
async def http(place: Place, report: Report) -> None:
    """The API is asked what its description allows, and more: no 500, and no answer that is not described."""
    until = time.monotonic() + spent(report, REQUESTS)
    config = await installed(place.folder, place.dsn, place.connection)
    async with standing(config) as side:
        patient(side)
        while time.monotonic() < until or report.injected < report.planned:
            left = max(until - time.monotonic(), 60.0)
            drawn = str(place.chance.randrange(2**31))
            options = ("--max-examples", "15", "--max-time", f"{left:.0f}", "--seed", drawn)
            code, ran, said = await requests(side.port, place.folder, *options)
            report.injected += ran
            report.expect(code == 0, f"seed {drawn}: {said.partition('= FAILURES =')[2][:3000] or said[-3000:]}")
            if code:
                break
    report.figures["requests"] = report.injected


@experiment("82-configurations", nightly=PLANNED, limit=SECONDS + 120)
async def configurations(place: Place, report: Report) -> None:
    """The loader reads, or says all that is wrong; it never falls over and never takes a second."""
    await hunted(place, report, fuzz.files(), partial(fuzz.config_is_read_or_refused, folder=place.folder))


@experiment("82-payloads", nightly=PLANNED, limit=SECONDS + 120)
async def payloads(place: Place, report: Report) -> None:
    """A payload is read exactly, or its job is invalid."""
    await hunted(place, report, fuzz.documents(), fuzz.payload_is_read_or_refused)


async def hunted(place: Place, report: Report, strategy: st.SearchStrategy[str], check: Callable[[str], None]) -> None:
    """Rounds of examples until the time is over."""
    until, worst = time.monotonic() + spent(report, PLANNED), 0.0
    while time.monotonic() < until or report.injected < report.planned:
        count = min(ROUND, report.planned)
        ran, slowest = await asyncio.to_thread(fuzz.examples, strategy, check, count, place.chance.randrange(2**31))
        report.injected += ran
        worst = max(worst, slowest)
    report.figures |= {"examples": report.injected, "slowest_s": round(worst, 3)}
    report.expect(worst < fuzz.HANG_SECONDS * report.slack, f"one took {worst:.2f} s")
