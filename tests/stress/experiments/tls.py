"""D.3: TLS that cannot be trusted, at the start and in the middle of the work."""

import asyncio

from tests.processes import Daemon
from tests.stress.certificates import BAD, Certificates
from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import FREE_JOBS, flowing, settle_all, stocked
from tests.stress.tls_front import TlsFront, tls_front
from tests.stress.workload import FREE, account

BACK_SECONDS = 15.0


@experiment("37-tls", nightly=5, quiet=True, limit=150)
async def tls(place: Place, report: Report) -> None:
    """Expired, for another host, signed by nobody: refused under verify-full; in the middle of the work it waits."""
    made = Certificates(place.folder / "certificates")
    async with tls_front(place.dsn, made) as front:
        config = place.configure(FREE, worker='poll = "500ms"\ngrace = "2s"')
        for name in BAD:
            front.show(name)
            daemon = place.spawn(config, front.dsn)
            code = await asyncio.to_thread(daemon.ends)
            report.injected += front.refused > 0
            report.expect(code == 2, f"{name}: exit code {code}, not 2")
            report.expect("certificate verify failed" in daemon.said(), f"{name}: it does not say why")
        report.expect(front.taken == 0, f"{front.taken} connections were made in spite of their certificate")
        front.show("good")
        daemon = place.spawn(config, front.dsn)
        await place.started(daemon)
        async with stocked(place, 40, FREE_JOBS):
            front.show("expired")
            await _refused(place, report, front, daemon, "expired")
            front.show("good")
            report.figures["renewed_to_first_job_s"] = round(await flowing(place, BACK_SECONDS), 1)
            front.speaks = False
            await _refused(place, report, front, daemon, "dropped")
            front.speaks = True
            report.figures["spoken_again_to_first_job_s"] = round(await flowing(place, BACK_SECONDS), 1)
        await settle_all(place, report)
        await place.judge(report)
    await account(place, report)


async def _refused(place: Place, report: Report, front: TlsFront, daemon: Daemon, name: str) -> None:
    """Cut in the middle of the work, it does not come back, says why, and waits."""
    await flowing(place)
    before, taken = front.refused, front.taken
    front.cut()
    await asyncio.sleep(4)
    report.injected += front.refused > before
    report.expect(front.taken == taken, f"{name}: it came back in spite of it")
    report.expect(daemon.process.poll() is None, f"{name}: the daemon ended with {daemon.process.poll()}")
    report.expect("database.refused" in daemon.said(), f"{name}: it does not say that it is refused")
