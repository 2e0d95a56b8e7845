"""D.3: who answers at the database's address is no Postgres, or not in its right mind."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.processes import Daemon
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import FaultProxy, faulty
from tests.stress.place import Place
from tests.stress.workload import FREE, MIXED, account, create_steps, producing

WAIT_SECONDS = 25.0  # the deadline of a connection is 10 s; a machine under load takes its time to start a daemon
SETTLE_SECONDS = 30.0
SILENT, BANNER, WEB, NO_TLS, CUT = "silent", "banner", "web", "no_tls", "cut"
DUTIES = ("control", "beat", "listen", "step")


async def _serve(says: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection to somebody who is no Postgres."""
    try:
        if says == BANNER:
            writer.write(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n" * 4)
            await asyncio.sleep(60)
        elif says != CUT:
            await reader.read(1024)
            if says == WEB:
                writer.write(b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n")
            elif says == NO_TLS:
                writer.write(b"N")
            else:
                await asyncio.sleep(60)
    except (OSError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def impostor(says: str) -> AsyncIterator[str]:
    """Its address."""
    server = await asyncio.start_server(partial(_serve, says), "127.0.0.1", 0)
    try:
        yield f"postgresql://postgres@127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    finally:
        server.close()


@experiment("33-strange-server-at-the-start", nightly=6, quiet=True)
async def strange_server(place: Place, report: Report) -> None:
    """Silence, another protocol, no TLS, a cut: each start says so within its deadline, and stops when it is asked."""
    config = place.configure(FREE)
    waiting = [_waits(place, report, config, says) for says in (SILENT, CUT)]
    ending = [_ends(place, report, config, says) for says in (BANNER, WEB, NO_TLS)]
    await asyncio.gather(*waiting, *ending, _comes_late(place, report, config))
    await place.judge(report)


async def _waits(place: Place, report: Report, config: Path, says: str) -> None:
    """The database is waited for, with a line in the log."""
    async with impostor(says) as address:
        daemon = place.spawn(config, address)
        await _said(report, daemon, "database.waiting", f"{says}: nothing was said within {WAIT_SECONDS:g} s")
        report.injected += 1
        await _stops(report, daemon, says)


async def _ends(place: Place, report: Report, config: Path, says: str) -> None:
    """No waiting helps; the one line that is said names the cause."""
    async with impostor(says) as address:
        daemon = place.spawn(config, f"{address}?sslmode=require" if says == NO_TLS else address)
        code = await asyncio.to_thread(daemon.ends)
        report.injected += 1
        report.expect(code == 2, f"{says}: exit code {code}, not 2")
        report.expect("does not speak TLS" in daemon.said(), f"{says}: it does not say why")


async def _comes_late(place: Place, report: Report, config: Path) -> None:
    """A server that takes connections and says nothing, until it comes to itself."""
    async with faulty(place.dsn) as proxy:
        proxy.mute = True
        daemon = place.spawn(config, proxy.dsn)
        await _said(report, daemon, "database.waiting", "mute: nothing was said")
        report.injected += 1
        proxy.mute = False
        await place.started(daemon)
        await _stops(report, daemon, "mute")


async def _said(report: Report, daemon: Daemon, text: str, otherwise: str) -> None:
    try:
        await asyncio.to_thread(daemon.says, text, WAIT_SECONDS)
    except AssertionError as said:
        report.expect(False, f"{otherwise}: {str(said)[-300:]}")


async def _stops(report: Report, daemon: Daemon, name: str) -> None:
    daemon.send(signal.SIGTERM)
    try:
        code: object = await asyncio.to_thread(daemon.ends, 20.0)
    except AssertionError:
        code = "nothing within 20 s"
        daemon.kill()
    report.expect(code == 0, f"{name}: SIGTERM came to {code}")


@experiment("33-half-closed", nightly=16)
async def half_close(place: Place, report: Report) -> None:
    """A FIN one way only, of each kind of connection and each way, while jobs run."""
    await create_steps(place)
    config = place.configure(MIXED)
    async with faulty(place.dsn, place.chance.randrange(1000)) as proxy:
        await place.started(place.spawn(config, proxy.dsn), place.spawn(config))
        async with producing(place, 60):
            for number in range(report.planned):
                await asyncio.sleep(0.4)
                await _half_closed(report, proxy, DUTIES[number % 4], ("server", "client")[number // 4 % 2])
        report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
        await place.judge(report)
    await account(place, report)


async def _half_closed(report: Report, proxy: FaultProxy, duty: str, towards: str) -> None:
    closed = 0
    for _ in range(200):  # it may be away just now
        if closed := proxy.half_close(duty, towards):
            break
        await asyncio.sleep(0.05)
    report.injected += closed > 0
    name = f"{duty}_to_{towards}"
    report.figures[name] = report.figures.get(name, 0) + closed
