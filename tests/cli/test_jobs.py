"""enqueue, jobs, show, cancel, status, config, migrate: what they answer, and with which exit code."""

import re

import asyncpg
import pytest

from tests.cli.support import Cli
from tests.heart import declare, enqueue


async def test_enqueue_prints_the_id(cli: Cli, connection: asyncpg.Connection) -> None:
    answer = await cli(
        "enqueue", "fine", '{"a": 1}', "--delay", "5m", "--priority", "7", "--tenant", "t", "--source", "hand",
        "--correlation-id", "c", "--max-attempts", "2", "--concurrency-key", "k", "--unique-key", "u",
    )  # fmt: skip
    row = await connection.fetchrow("select *, scheduled_at > now() + interval '4 min' as later from worker.jobs")
    assert row is not None
    assert (answer.code, answer.out) == (0, f"{row['id']}\n")
    assert (row["priority"], row["tenant_id"], row["source"], row["later"]) == (7, "t", "hand", True)
    assert (row["correlation_id"], row["max_attempts"], row["concurrency_key"], row["unique_key"]) == ("c", 2, "k", "u")


async def test_enqueue_reads_standard_input_and_answers_in_json(cli: Cli, connection: asyncpg.Connection) -> None:
    answer = await cli("enqueue", "fine", "-", "--json", given='{"b": 2}')
    assert (
        await connection.fetchval("select payload::text from worker.jobs where id = $1", answer.value["id"])
        == '{"b": 2}'
    )


async def test_enqueue_keeps_or_refuses_the_holder(cli: Cli) -> None:
    first = await cli("enqueue", "fine", "--unique-key", "u")
    again = await cli("enqueue", "fine", "--unique-key", "u")
    refused = await cli("enqueue", "fine", "--unique-key", "u", "--on-conflict", "refuse")
    assert first.out == again.out
    assert (refused.code, refused.out) == (2, "")
    assert "already holds the unique key" in refused.err


async def test_enqueue_says_that_nobody_declared_the_type(cli: Cli) -> None:
    answer = await cli("enqueue", "unheard_of")
    assert (answer.code, answer.out) == (0, "1\n")
    assert "nobody declared unheard_of" in answer.err


async def test_enqueue_refuses_what_is_no_json_and_no_duration(cli: Cli) -> None:
    broken, slow = await cli("enqueue", "fine", "{"), await cli("enqueue", "fine", "--delay", "soon")
    assert (broken.code, slow.code) == (2, 2)
    assert "not JSON" in broken.err
    assert "500ms" in slow.err


async def test_an_error_of_the_database_is_one_line_without_the_row(cli: Cli) -> None:
    answer = await cli("enqueue", "Not A Name", '{"private": "geheim"}')
    assert answer.code == 2
    assert "23514" in answer.err
    assert "geheim" not in answer.err


async def test_jobs_filters_and_turns_pages(cli: Cli, connection: asyncpg.Connection) -> None:
    for number in range(5):
        await enqueue(connection, "fine" if number % 2 else "other", {}, tenant_id=str(number % 3))
    await connection.execute("select worker.cancel(5)")
    listed = (await cli("jobs", "--json", "--limit", "2")).value
    assert [job["id"] for job in listed] == [5, 4]
    assert [job["id"] for job in (await cli("jobs", "--json", "--before", "4")).value] == [3, 2, 1]
    assert [job["id"] for job in (await cli("jobs", "--json", "--type", "fine")).value] == [4, 2]
    assert [job["id"] for job in (await cli("jobs", "--json", "--status", "cancelled")).value] == [5]
    assert [job["id"] for job in (await cli("jobs", "--json", "--tenant", "0", "--type", "other")).value] == [1]
    assert "more: --before 4" in (await cli("jobs", "--limit", "2")).out


async def test_text_from_the_database_cannot_drive_the_terminal(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine", {}, tenant_id="\x1b[31m[red]")
    shown, listed = await cli("show", "1"), await cli("jobs")
    assert "\x1b" not in shown.out + listed.out
    assert "[red]" in listed.out


async def test_show_has_steps_errors_and_events(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")
    await connection.execute(
        "insert into worker.job_step (job_id, name, status, attempt, claim, started_at, finished_at) values"
        " (1, 'second', 'completed', 2, 1, now(), now() + interval '1 s'),"
        " (1, 'first', 'completed', 1, 1, now() - interval '1 s', now()), (1, 'third', 'waiting', 1, 1, null, null)"
    )
    await connection.execute("select worker.cancel(1, 'because')")
    found = (await cli("show", "1", "--json")).value
    assert [(step["name"], step["began"]) for step in found["steps"]] == [("first", 0), ("second", 1), ("third", None)]
    assert (found["finish_reason"], found["events"][0]["event"]) == ("because", "cancel")
    text = (await cli("show", "1")).out
    assert "✓ second |" in text
    assert "attempt 2" in text
    assert "cancel by" in text


async def test_show_tells_each_transition_of_an_audited_job(cli: Cli, connection: asyncpg.Connection) -> None:
    await declare(connection, {"name": "watched", "audit": True})
    job = await enqueue(connection, "watched")
    me = await connection.fetchval("select worker.register('h', 1, '0', '{watched}', 1, '1 h')")
    await connection.fetch("select * from worker.claim($1, 1, '{watched}', 1)", me)
    text = (await cli("show", str(job))).out
    who = await connection.fetchval("select session_user")
    assert f"enqueued by {who} to=pending" in text
    assert f"claimed by {who} pending → running claim=1 attempt=1 process={me}" in text


@pytest.mark.parametrize("number", ["12345678901234567890123", "1" * 5_000])
async def test_numbers_are_shown_with_every_digit(cli: Cli, connection: asyncpg.Connection, number: str) -> None:
    await connection.execute(
        "insert into worker.job_queue (job_type, payload) values ('fine', $1)", f'{{"n": {number}}}'
    )
    for answer in (await cli("show", "1"), await cli("show", "1", "--json"), await cli("jobs", "--json")):
        assert answer.code == 0
        assert number in answer.out


async def test_a_step_that_was_left_behind_is_interrupted(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")
    await connection.execute(
        "insert into worker.job_step (job_id, name, status, attempt, claim, started_at)"
        " values (1, 'left', 'running', 1, 1, now() - interval '1 hour')"
    )
    waiting = next(line for line in (await cli("show", "1")).out.splitlines() if "left" in line)
    assert waiting.endswith("interrupted")
    assert " ms" not in waiting
    await connection.execute(
        "update worker.job_queue set status = 'cancelled', queued = false, trouble = true,"
        " finished_at = now() - interval '59 min'"
    )
    ended = next(line for line in (await cli("show", "1")).out.splitlines() if "left" in line)
    assert re.search(r"60\d{3} ms", ended)
    assert ended.endswith("interrupted")


async def test_tables_fit_a_narrow_terminal(
    cli: Cli, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.cli.paper.WIDE", 80)
    await cli("migrate")
    await connection.execute(
        "select worker.register('a-rather-long-host-name', 7, '1', '{fine,fails,keyed}', 9, '30 s')"
    )
    await enqueue(connection, "a_type_with_quite_a_long_name", {}, tenant_id="t" * 40)
    await connection.execute(
        "update worker.job_queue set status = 'failed', trouble = true, queued = false, finish_reason = 'permanent',"
        " errors = jsonb_build_array(jsonb_build_object('attempt', 1, 'message', repeat('it broke ', 9))),"
        " started_at = created_at, finished_at = created_at + interval '12 ms'"
    )
    listed, told = (await cli("jobs")).out.splitlines(), (await cli("status")).out.splitlines()
    assert max(map(len, listed + told)) <= 80
    assert len(listed) == 2
    assert "a_type_with_quite_a_long_name" in listed[1]
    assert "permanent: it broke" in listed[1]
    assert any(re.match(r"stumbles +no daemon", line) for line in told)


async def test_durations_are_readable(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")
    await connection.execute(
        "update worker.job_queue set status = 'completed', queued = false,"
        " started_at = created_at, finished_at = created_at + interval '12 ms'"
    )
    assert "12 ms" in (await cli("jobs")).out
    assert "duration             12 ms" in (await cli("show", "1")).out


async def test_unknown_job_is_an_error(cli: Cli) -> None:
    for verb in ("show", "cancel"):
        answer = await cli(verb, "99")
        assert (answer.code, answer.out) == (2, "")
        assert "there is no job 99" in answer.err


async def test_cancel_pending_needs_no_leave(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")
    done, again = await cli("cancel", "1", "--reason", "why"), await cli("cancel", "1")
    assert (done.code, again.code) == (0, 1)
    assert "at its end already: cancelled" in again.out
    assert await connection.fetchval("select finish_reason from worker.jobs") == "why"


async def test_cancel_running_asks_first(cli: Cli, connection: asyncpg.Connection) -> None:
    await enqueue(connection, "fine")
    await connection.execute(
        "update worker.job_queue set status = 'running', queued = false, claim = 1, started_at = now()"
    )
    refused = await cli("cancel", "1")
    assert (refused.code, refused.out) == (2, "")
    assert "on test: end the running fine job 1" in refused.err
    assert "--yes" in refused.err
    assert await connection.fetchval("select cancel_requested_at from worker.jobs") is None
    assert (await cli("cancel", "1", "--yes")).code == 0
    assert await connection.fetchval("select cancel_requested_at from worker.jobs") is not None


async def test_status_shows_types_and_daemons(cli: Cli, connection: asyncpg.Connection) -> None:
    await cli("migrate")
    await enqueue(connection, "unheard_of")
    await connection.execute("select worker.register('box', 7, '1', '{fine}', 9, '30 s')")
    found = (await cli("status", "--json")).value
    types = {each["job_type"]: each for each in found["types"]}
    assert (types["unheard_of"]["declared"], types["unheard_of"]["waiting"]) == (False, 1)
    assert (types["fine"]["daemons"], types["fails"]["daemons"]) == (1, 0)
    assert [(daemon["host"], daemon["state"]) for daemon in found["daemons"]] == [("box", "alive")]
    text = (await cli("status")).out
    assert "undeclared" in text
    assert "box" in text
    assert (await cli("status", "--watch", "--json")).code == 2


async def test_migrate_declares_and_may_be_repeated(cli: Cli, connection: asyncpg.Connection) -> None:
    first, again = await cli("migrate"), await cli("migrate")
    assert (first.code, again.code) == (0, 0)
    assert "declared job type fine" in first.out
    assert again.out == "the schema is up to date\n"
    assert await connection.fetchval("select count(*) from worker.job_type where name = 'fails'") == 1


async def test_config_is_shown_without_secrets(cli: Cli) -> None:
    shown = await cli("config", "show", "--json")
    assert (shown.value["environment"], shown.value["database"]["url"]) == ("test", "***")
    assert 'job.fine.python = "tests.cli.handlers:fine"' in (await cli("config", "show")).out
