"""D.3: the database's name cannot be found, is found late, or leads elsewhere."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from tests.processes import Daemon
from tests.stress.asking import Readiness, get
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import FaultProxy, faulty
from tests.stress.names import NAME, NO_ERROR, NXDOMAIN, SERVFAIL, Names, names
from tests.stress.place import Place
from tests.stress.postgres import FREE_JOBS, flowing, stocked
from tests.stress.telling import percentile
from tests.stress.workload import FREE, account

TROUBLE_SECONDS = 4.0
SLOW_SECONDS = 10.0
BACK_SECONDS = 30.0
ALIVE_SECONDS = 1.0  # /healthz says that the loop turns, whatever the resolver does
SETTLE_SECONDS = 30.0


@experiment("36-dns", nightly=6, limit=200)
async def dns(place: Place, report: Report) -> None:
    """NXDOMAIN, SERVFAIL, a resolver that takes 10 s, another address, an address of IPv6 first; a stop in between."""
    readiness = Readiness()
    async with names(place.folder) as served, faulty(place.dsn, 1) as proxy, _also_at(proxy, "127.0.0.2"):
        config = place.configure(FREE + readiness.section, worker='poll = "500ms"\ngrace = "2s"')
        address = f"postgresql://postgres@{NAME}:{proxy.port}{proxy.tcp_dsn.rpartition(str(proxy.port))[2]}"
        served.code = NXDOMAIN
        daemon = place.spawn(config, address, prefix=served.prefix)
        await asyncio.to_thread(daemon.says, "database.waiting")
        served.code = NO_ERROR
        await place.started(daemon)
        async with stocked(place, 40, FREE_JOBS):
            for name in TROUBLES:
                await _troubled(place, report, (served, proxy, readiness.port), name)
        await _stopped_meanwhile(report, served, proxy, daemon)
        report.expect(not place.count_said('"loop.blocked"'), "the loop was blocked")
        _set(served, WELL)
        await place.started(place.spawn(config, address, prefix=served.prefix))
        report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
        report.figures["questions"] = served.asked
        await place.judge(report)
    await account(place, report)


class Trouble(NamedTuple):
    """What the resolver says, how late, and for how long; afterwards it answers 127.0.0.1 at once."""

    code: int = NO_ERROR
    delay: float = 0.0
    addresses: tuple[str, ...] = ()
    seconds: float = TROUBLE_SECONDS


TROUBLES = {
    "nxdomain": Trouble(NXDOMAIN),
    "servfail": Trouble(SERVFAIL),
    "slow": Trouble(delay=SLOW_SECONDS, addresses=("127.0.0.1",), seconds=SLOW_SECONDS + 2),
    "moved": Trouble(addresses=("127.0.0.2",), seconds=0),  # and stays there
    "ipv6_first": Trouble(addresses=("::1", "127.0.0.1"), seconds=0),
}
WELL = Trouble(addresses=("127.0.0.1",))


def _set(served: Names, trouble: Trouble) -> None:
    served.code, served.delay, served.addresses = trouble.code, trouble.delay, list(trouble.addresses)


async def _troubled(place: Place, report: Report, net: tuple[Names, FaultProxy, int], name: str) -> None:
    (served, proxy, port), trouble = net, TROUBLES[name]
    await flowing(place)
    asked = served.asked
    _set(served, trouble)
    proxy.cut()  # whoever comes back has to ask for the name
    if trouble.seconds:
        answers = await _asked_alive(port, trouble.seconds)
        _set(served, WELL)
        report.figures[f"{name}_healthz_p99_s"] = round(percentile(answers, 0.99), 2)
        report.expect(max(answers) < ALIVE_SECONDS, f"{name}: /healthz took {max(answers):.1f} s")
    report.figures[f"{name}_to_first_job_s"] = round(await flowing(place, BACK_SECONDS), 1)
    with contextlib.suppress(TimeoutError):  # that job may have been under way before the connections were cut
        async with asyncio.timeout(BACK_SECONDS):
            while served.asked == asked:
                await asyncio.sleep(0.05)
    report.injected += served.asked > asked


async def _asked_alive(port: int, seconds: float) -> list[float]:
    """Seconds that each answer of /healthz took; one that does not come took for ever."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        status, _ = await get(port, "/healthz")
        took.append(time.monotonic() - began if status == 200 else float("inf"))
        await asyncio.sleep(0.05)
    return took


async def _stopped_meanwhile(report: Report, served: Names, proxy: FaultProxy, daemon: Daemon) -> None:
    """SIGTERM while every look-up hangs."""
    served.delay = SLOW_SECONDS
    proxy.cut()
    await asyncio.sleep(1.5)
    began = time.monotonic()
    daemon.send(signal.SIGTERM)
    code = await asyncio.to_thread(daemon.ends)
    report.injected += 1
    report.figures["stop_s"] = round(time.monotonic() - began, 1)
    report.expect(code == 0, f"a stop while look-ups hang came to {code}")


@contextlib.asynccontextmanager
async def _also_at(proxy: FaultProxy, host: str) -> AsyncIterator[None]:
    """The same proxy at the same port of another address."""
    server = await asyncio.start_server(proxy.serve, host, proxy.port)
    try:
        yield
    finally:
        server.close()
