"""D.8: metrics asked for two hundred times a second, by some who never finish asking, and without a database."""

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.heart import becomes
from tests.processes import die_with_parent
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.scraping import Scraper, pestering, scraping
from tests.stress.telling import percentile
from tests.stress.workload import FREE
from tests.support import ROOT, free_port

PER_SECOND = 200
PESTS = 60  # of each kind, at each of the two ports
JOBS = 400
PAUSE = 0.02  # between two of them
DOWN_SECONDS = 6.0
ANSWER_SECONDS = 0.05
SLOWER, MORE = 1.5, 0.05  # times, or seconds, by which the p99 of a job's wait may grow
DATABASE_UP = "worker_exporter_database_up"
HTTP = '[http]\nlisten = "127.0.0.1:{port}"\napi = false\n'
WAITS = (
    "select percentile_cont(0.99) within group (order by extract(epoch from started_at - created_at))"
    " from worker.job_queue where id > $1"
)


@experiment("78-scrapes", own_server=True, nightly=3, limit=180)
async def scrapes(place: Place, report: Report) -> None:
    """200 scrapes/s and hundreds of clients that never finish: jobs wait no longer; without a database answers go on.

    A daemon and an exporter are asked; while the database is away both answer from memory, and say so.
    """
    ports = [free_port(), free_port()]
    await place.started(place.spawn(place.configure(HTTP.format(port=ports[0]) + FREE)))
    with _exporter(place, ports[1]) as exporter:
        async with scraping(ports[1:], 10) as first:
            await becomes(lambda: first[0].value(DATABASE_UP) == 1, 40)
        report.figures["alone_p99_ms"] = alone = await _waits(place)
        await _asked(place, report, ports, alone)
        await _pestered(place, report, ports, alone)
        await _away(place, report, ports)
        exporter.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(exporter.wait, 20)
        report.expect(code == 0, f"the exporter ended with {code}")
    await place.judge(report)


async def _asked(place: Place, report: Report, ports: Sequence[int], alone: float) -> None:
    async with scraping(ports, PER_SECOND) as scrapers:
        beside = await _waits(place)
    _judge(report, "asked", scrapers, beside, alone)


async def _pestered(place: Place, report: Report, ports: Sequence[int], alone: float) -> None:
    async with pestering(ports, PESTS) as opened:
        await becomes(lambda: opened[0] >= 4 * PESTS, 20)
        async with scraping(ports, PER_SECOND) as scrapers:
            beside = await _waits(place)
    report.figures["pests_connections"] = opened[0]
    _judge(report, "pestered", scrapers, beside, alone)


async def _away(place: Place, report: Report, ports: Sequence[int]) -> None:
    """While it is away they answer as fast, and say that they know nothing; and it is found again."""
    await asyncio.to_thread(place.server.stop, "immediate")
    began = time.monotonic()
    async with scraping(ports, PER_SECOND) as scrapers:
        of_exporter = scrapers[-1]
        await becomes(lambda: of_exporter.value(DATABASE_UP) == 0, 40)
        report.figures["noticed_s"] = round(time.monotonic() - began, 1)
        await asyncio.sleep(DOWN_SECONDS)
        report.expect(of_exporter.value(DATABASE_UP) == 0, "the exporter says that the database is up")
        oldest = scrapers[0].value("worker_oldest_transaction_seconds")
        report.expect(oldest is not None and math.isnan(oldest), f"the daemon says {oldest} of a database that is away")
        _answers(report, "away", scrapers)
        report.injected += 1
        await asyncio.to_thread(place.server.restart)
        healed = time.monotonic()
        await becomes(lambda: of_exporter.value(DATABASE_UP) == 1, 60)
        report.recovery.append(time.monotonic() - healed)
    await place.reconnect()


async def _waits(place: Place) -> float:
    """p99 of what jobs waited that came one after the other, in milliseconds."""
    before = await place.connection.fetchval("select coalesce(max(id), 0) from worker.job_queue")
    for _ in range(JOBS):
        await place.connection.execute("""select worker.enqueue('free', '{"ms": 1}')""")
        await asyncio.sleep(PAUSE)
    if not await place.settled(30):
        raise AssertionError("jobs are not final after 30 s")
    return round(1000 * float(await place.connection.fetchval(WAITS, before)), 1)


def _judge(report: Report, name: str, scrapers: Sequence[Scraper], beside: float, alone: float) -> None:
    report.figures[f"{name}_p99_ms"] = beside
    limit = max(SLOWER * alone, alone + 1000 * MORE) * report.slack
    report.expect(beside <= limit, f"{name}: jobs waited {beside} ms at p99, alone {alone} ms")
    _answers(report, name, scrapers)
    report.injected += 1


def _answers(report: Report, name: str, scrapers: Sequence[Scraper]) -> None:
    seconds = [each for scraper in scrapers for each in scraper.seconds]
    failed = sum(scraper.failed for scraper in scrapers)
    found = percentile(seconds, 0.99)
    report.figures |= {f"{name}_scrapes": len(seconds), f"{name}_scrape_p99_ms": round(1000 * found, 1)}
    report.figures[f"{name}_scrapes_failed"] = failed
    report.expect(found <= ANSWER_SECONDS * report.slack, f"{name}: a scrape took {found:.3f} s at p99")
    report.expect(failed <= len(seconds) / 100, f"{name}: {failed} of {len(seconds)} scrapes had no answer")


@contextmanager
def _exporter(place: Place, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    config = Path(place.folder) / "exporter.toml"
    config.write_text('environment = "test"\n', encoding="utf-8")
    command = [sys.executable, "-m", "worker", "exporter", "--config", str(config), "--listen", f"127.0.0.1:{port}"]
    environment = {**os.environ, "DATABASE_URL": place.dsn}
    with (place.folder / "exporter.log").open("ab") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl, nothing that takes a lock
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
