"""D.2: the daemons' password changes, their role expires, a right on a step's function is taken away."""

import asyncio
from pathlib import Path

from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import (
    DEFAULT_TERMS,
    FREE_JOBS,
    GRAPH_JOBS,
    daemon_role,
    end_sessions,
    errors_said,
    few_attempts,
    flowing,
    settle_all,
    stocked,
    unharmed,
)
from tests.stress.workload import MIXED, account, create_steps

SHUT_OUT_SECONDS = 3.0
HEALED_SECONDS = 10.0  # from the right password to the first job
BARRED = """
[job.barred]
arguments = { job_id = "id" }
retry = { first = "10ms", max_attempts = 2 }
steps = { barred = { sql = "barred" } }
"""


@experiment("19-credentials", own_server=True, quiet=True, nightly=4)
async def credentials(place: Place, report: Report) -> None:
    """Password and its file changed at once; the file late; the role expired; EXECUTE on one function revoked."""
    passwords = place.folder / "pgpass"
    await create_steps(place)
    await place.connection.execute(
        "create function barred(job_id bigint) returns void language sql"
        " as $$ select evidence.step(job_id, 'barred') $$"
    )
    dsn = await daemon_role(place, "first")
    await _demand_passwords(place)
    _write(passwords, "first")
    config = place.configure(few_attempts(MIXED) + BARRED, DEFAULT_TERMS)
    await place.started(*(place.spawn(config, f"{dsn}&passfile={passwords}") for _ in range(2)))
    async with stocked(place, 60, FREE_JOBS, GRAPH_JOBS):
        for phase in (_changed, _changed_late, _expired):
            await flowing(place)
            await phase(place, passwords)
            report.injected += 1
            healed = await flowing(place)
            report.figures[f"healed_after_{phase.__name__[1:]}_s"] = round(healed, 2)
            report.expect(healed <= HEALED_SECONDS, f"nothing was done for {healed:.1f} s after {phase.__name__[1:]}")
    await settle_all(place, report)
    await unharmed(place, report)
    await _barred(place, report)
    report.figures |= errors_said(place)
    await place.judge(report)
    await account(place, report)


async def _demand_passwords(place: Place) -> None:
    rules = place.server.data / "cluster" / "pg_hba.conf"
    with rules.open("r+") as file:  # in place: it stays the server's own
        said = file.read()
        file.seek(0)
        file.write(f"local all daemon scram-sha-256\n{said}")
    await place.connection.execute("select pg_reload_conf()")


def _write(passwords: Path, password: str) -> None:
    new = passwords.with_suffix(".new")
    new.write_text(f"*:*:*:daemon:{password}\n")
    new.chmod(0o600)
    new.replace(passwords)


async def _changed(place: Place, passwords: Path) -> None:
    await place.connection.execute("alter role daemon password 'second'")
    _write(passwords, "second")
    await end_sessions(place)


async def _changed_late(place: Place, passwords: Path) -> None:
    await place.connection.execute("alter role daemon password 'third'")
    await end_sessions(place)
    await asyncio.sleep(SHUT_OUT_SECONDS)
    _write(passwords, "third")


async def _expired(place: Place, _: Path) -> None:
    await place.connection.execute("alter role daemon valid until '2020-01-01'")
    await end_sessions(place)
    await asyncio.sleep(SHUT_OUT_SECONDS)
    await place.connection.execute("alter role daemon valid until 'infinity'")


async def _barred(place: Place, report: Report) -> None:
    """Without EXECUTE on its function one type fails, and says why; the others go on."""
    await place.connection.execute("revoke execute on function barred(bigint) from public")
    report.injected += 1
    before = await place.connection.fetchval("select max(id) from worker.job_queue")
    await place.connection.execute("select worker.enqueue('barred') from generate_series(1, 5)")
    await place.connection.execute(FREE_JOBS)
    await place.connection.execute(GRAPH_JOBS)
    await settle_all(place, report)
    wrong = await place.connection.fetch(
        "select id, job_type, status, finish_reason, errors::text from worker.job_queue where id > $1 and"
        " (status = 'failed' and finish_reason = 'exhausted' and errors::text ~ '42501.*barred') is distinct from"
        " (job_type = 'barred')", before,
    )  # fmt: skip
    report.expect(not wrong, f"not alone, or without a word: {[tuple(each) for each in wrong[:3]]}")
    report.expect(place.count_said("42501") >= 5, "the log does not say that a right is missing")
