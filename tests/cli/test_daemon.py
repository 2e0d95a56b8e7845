"""run and drain, as real processes."""

import asyncio
import signal
import subprocess

import asyncpg
import pytest

from tests.cli.support import SECONDS, Answer, Cli
from tests.heart import enqueue, new_process, until

RUNNING = """
    update worker.job_queue set status = 'running', queued = false, started_at = now(), claim = 1, claimed_by = $2
     where id = $1
"""


async def ends(process: "subprocess.Popen[str]") -> Answer:
    out, err = await asyncio.to_thread(process.communicate, timeout=SECONDS)
    return Answer(process.returncode, out, err)


async def says(process: "subprocess.Popen[str]", text: str) -> str:
    """What it has said since the last look, up to a line with this text."""
    assert process.stderr is not None
    lines = [""]
    async with asyncio.timeout(SECONDS):
        while text not in lines[-1]:
            lines.append(await asyncio.to_thread(process.stderr.readline))
            assert lines[-1], f"it ended without {text!r}: {''.join(lines)}"
    return "".join(lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_works_until_it_is_stopped(cli: Cli, connection: asyncpg.Connection, number: int) -> None:
    daemon = cli.start("run")
    job = await enqueue(connection, "fine")
    await until(connection, "select status = 'completed' from worker.jobs where id = $1", job)
    daemon.send_signal(number)
    answer = await ends(daemon)
    assert (answer.code, answer.out) == (0, "")
    assert "service.stopped" in answer.err


async def test_second_signal_hands_back_at_once(cli: Cli, connection: asyncpg.Connection) -> None:
    daemon = cli.start("run")
    await enqueue(connection, "waits")
    await until(connection, "select status = 'running' from worker.jobs")
    daemon.send_signal(signal.SIGINT)
    await asyncio.sleep(0.3)
    daemon.send_signal(signal.SIGINT)
    assert (await ends(daemon)).code == 0
    assert await connection.fetchval("select status from worker.jobs") == "pending"


async def test_run_waits_for_the_database_and_says_so(cli: Cli) -> None:
    daemon = cli.start("run", DATABASE_URL="postgresql://u:geheim@127.0.0.1:1/x")
    said = await says(daemon, "database.waiting") + await says(daemon, "database.waiting")
    daemon.send_signal(signal.SIGTERM)
    answer = await ends(daemon)
    assert answer.code == 0
    assert "geheim" not in said + answer.err


async def test_drain_of_nothing(cli: Cli) -> None:
    answer = await cli.process("drain", "--json")
    assert (answer.code, answer.value) == (0, {"done": True, "ran": {}, "left": {}})


async def test_drain_runs_all_and_their_follow_ups(cli: Cli, connection: asyncpg.Connection) -> None:
    for kind in ("fine", "follows", "keyed", "keyed", "keyed"):
        await enqueue(connection, kind)
    answer = await cli.process("drain")
    assert (answer.code, answer.out) == (0, "ran: 6 completed\nnothing is left\n")
    assert await connection.fetchval("select count(*) from worker.process where stopped_at is null") == 0


async def test_drain_says_no_when_a_job_failed(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fails")
    answer = await cli.process("drain", "--json")
    assert (answer.code, answer.value["ran"], answer.value["done"]) == (1, {"failed": 1}, False)


async def test_drain_leaves_retries_and_snoozes_unless_it_may_wait(cli: Cli, connection: asyncpg.Connection) -> None:
    stumbling, snoozing = await enqueue(connection, "stumbles"), await enqueue(connection, "snoozes")
    later = "update worker.job_queue set scheduled_at = now() + interval '1 h' where id = any ($1) and queued"
    left = await cli.process("drain", "--json")
    assert (left.code, left.value["ran"]) in ((1, {}), (1, {"completed": 1}))  # a jittered retry may be due at once
    await connection.execute(later, [stumbling, snoozing])
    assert (await cli.process("drain", "--wait", "1s")).code == 1
    await connection.execute("update worker.job_queue set scheduled_at = now() + interval '500 ms' where queued")
    waited = await cli.process("drain", "--wait", "30s", "--json")
    assert (waited.code, waited.value["left"]) == (0, {})
    assert await connection.fetchval("select count(*) from worker.jobs where status = 'completed'") == 2


async def test_drain_lists_what_is_not_its_own(cli: Cli, connection: asyncpg.Connection) -> None:
    await cli("migrate")
    await enqueue(connection, "unheard_of")
    await connection.execute("select worker.enqueue('fine', delay => '1 h')")
    await enqueue(connection, "snoozes")
    await connection.execute("update worker.job_type set paused = true where name = 'snoozes'")
    holder, other = await enqueue(connection, "keyed"), await new_process(connection)
    await connection.execute(RUNNING, holder, other)
    await connection.execute("insert into worker.key_slot (key, job_id) values ('one', $1)", holder)
    await enqueue(connection, "keyed")
    answer = await cli.process("drain", "--json")
    left = {"undeclared": 1, "scheduled": 1, "paused": 1, "running": 1, "parked": 1}
    assert (answer.code, answer.value) == (0, {"done": True, "ran": {}, "left": left})


GATED = """
[job.few]
python = "tests.cli.handlers:fine"
limit = 1
[job.rated]
python = "tests.cli.handlers:fine"
rate = { limit = 1, per = "5s" }
"""


async def test_drain_waits_for_a_rate_and_lists_what_a_limit_holds_up(cli: Cli, connection: asyncpg.Connection) -> None:
    cli.config.write_text(cli.config.read_text() + GATED)
    await cli("migrate")
    holder, other = await enqueue(connection, "few"), await new_process(connection)
    await connection.execute(RUNNING, holder, other)
    await connection.execute("update worker.type_slot set job_id = $1", holder)
    await enqueue(connection, "few")
    for _ in range(3):
        await enqueue(connection, "rated")
    answer = await cli.process("drain", "--json")
    left = {"limited": 1, "running": 1, "rated": 2}
    assert (answer.code, answer.value) == (1, {"done": False, "ran": {"completed": 1}, "left": left})
    answer = await cli.process("drain", "--wait", "20s", "--json")
    assert (answer.code, answer.value["left"]) == (0, {"limited": 1, "running": 1})


async def test_drain_says_no_when_a_due_row_could_not_be_claimed(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")
    async with connection.transaction():
        await connection.execute("select from worker.job_queue for update")
        answer = await cli.process("drain", "--json")
    assert (answer.code, answer.value["left"]) == (1, {"claimable": 1})


async def test_interrupted_drain_hands_back(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "waits")
    process = cli.start("drain", "--json")
    await until(connection, "select status = 'running' from worker.jobs")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
    answer = await ends(process)
    assert (answer.code, answer.out) == (130, "")
    assert await connection.fetchval("select status from worker.jobs") == "pending"


async def test_drain_refuses_when_the_master_is_off(cli: Cli) -> None:
    cli.config.write_text(cli.config.read_text().replace("[worker]", "[worker]\nenabled = false"))
    answer = await cli.process("drain")
    assert answer.code == 2
    assert "worker.enabled is false" in answer.err
