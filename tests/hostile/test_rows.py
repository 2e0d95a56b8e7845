"""A batch of ten with one row that is poison: it fails alone and says why; the other nine finish at the first try."""

import re

import asyncpg
import orjson
import pytest

from tests.heart import QUICK, configured, daemon, enqueue, row, until
from worker import Context

JOBS = """
[job.read]
python = "tests.hostile.test_rows:read"
retry = { first = "1ms" }
[job.field]
arguments = { n = "n" }
retry = { first = "1ms" }
[job.field.steps]
number = { sql = "a_number" }
[job.boom]
python = "tests.hostile.test_rows:boom"
retry = { first = "100d", factor = 100.0, max = "1h" }
"""
NUMBER = "create function a_number(n bigint) returns bigint language sql as $$ select n $$"
ENDED = "select count(*) = 0 from worker.job_queue where status in ('pending', 'running')"


async def read(context: Context) -> object:
    """Needs its payload to be an object that Python can read."""
    return len(context.payload.get("list", []))


async def boom(context: Context) -> None:
    raise ValueError("boom")


@pytest.fixture
async def config(dsn, tmp_path, connection):
    await connection.execute(NUMBER)
    # With a connection for each of them: one claim takes them all.
    return configured(tmp_path, dsn, JOBS, worker=QUICK, database='search_path = "public"\nsteps = 10')


def nested(depth: int) -> str:
    return '{"list": ' + "[" * depth + "]" * depth + "}"


def number(digits: str) -> str:
    return f'{{"list": [], "n": {digits}}}'


# What is poison for one type, as it stands in the row: payload, attempts it may take, and why it fails.
POISON = {
    "nested 1,100 deep": ("read", nested(1_100), 1, "invalid", "cannot be decoded.*depth"),
    "nested 3,000 deep": ("read", nested(3_000), 1, "invalid", "cannot be decoded.*depth"),
    "4,301 digits": ("read", number("1" * 4_301), 1, "invalid", "cannot be decoded.*number"),
    "5,000 digits": ("read", number("9" * 5_000), 1, "invalid", "cannot be decoded.*number"),
    "5,000 digits and a half": ("read", number("9" * 5_000 + ".5"), 1, "invalid", "cannot be decoded.*number"),
    "a top-level number": ("read", "7", 2, "exhausted", "AttributeError.*int.*get"),
    "a top-level null": ("read", "null", 2, "exhausted", "AttributeError.*NoneType.*get"),
    "a top-level string": ("read", '"text"', 2, "exhausted", "AttributeError.*str.*get"),
    "a top-level array": ("read", "[1, 2]", 2, "exhausted", "AttributeError.*list.*get"),
    "a scalar where a step wants a key": ("field", "7", 1, "invalid", "the payload has no key 'n'"),
    "null where a step wants a key": ("field", "null", 1, "invalid", "the payload has no key 'n'"),
    "deep where a step wants a key": ("field", nested(3_000), 1, "invalid", "cannot be decoded.*depth"),
    "a word where a step wants a number": ("field", number('"many"'), 2, "exhausted", "22P02.*bigint.*many"),
    "a number beyond the step's type": ("field", number("9223372036854775808"), 2, "exhausted", "22"),
}
SOUND = {"read": '{"list": [1]}', "field": '{"n": 1}'}


@pytest.mark.parametrize("poison", POISON)
async def test_the_poison_row_fails_alone(config, connection, poison):
    job_type, payload, attempts, reason, says = POISON[poison]  # all before the daemon starts: one claim takes them
    ids = [await raw(connection, job_type, SOUND[job_type], max_attempts=2) for _ in range(9)]
    ids.insert(5, await raw(connection, job_type, payload, max_attempts=2))
    async with daemon(config) as (_, task, _me):
        await until(connection, ENDED)
        assert not task.done()
    rows = [await row(connection, each) for each in ids]
    bad = rows.pop(5)
    assert (bad["status"], bad["finish_reason"], bad["attempt"]) == ("failed", reason, attempts)
    assert re.search(says, errors(bad)[-1])
    assert [(each["status"], each["attempt"]) for each in rows] == [("completed", 1)] * 9
    assert len({(each["batch"], each["claimed_by"]) for each in rows}) == 1


async def raw(connection: asyncpg.Connection, job_type: str, payload: str, **columns: object) -> int:
    """A plain insert, as a producer in another language would write it."""
    named = ", ".join(["job_type", "payload", *columns])
    marks = ", ".join(["$1", "$2::jsonb", *(f"${n}" for n in range(3, 3 + len(columns)))])
    found: int = await connection.fetchval(
        f"insert into worker.job_queue ({named}) values ({marks}) returning id", job_type, payload, *columns.values()
    )
    return found


def errors(found: asyncpg.Record) -> list[str]:
    return [each["message"] for each in orjson.loads(found["errors"])]


HARMLESS = {
    "nested 900 deep": nested(900),
    "nested 1,000 deep": nested(1_000),
    "negative zero": number("-0"),
    "300 digits": number("1" * 300),
    "1e400": number("1e400"),
    "-1e400": number("-1e400"),
    "the smallest float": number("5e-324"),
    "duplicate keys": '{"list": [], "list": [1]}',
    "4,000 keys": orjson.dumps({f"k{n}": n for n in range(4_000)}).decode(),
    "an empty key": '{"": 1, "list": []}',
    "right to left and beyond the BMP": '{"list": [], "a": "\\u202e\\ud83d\\ude00\\u2028"}',
    "terminal escapes": '{"list": [], "a": "\\u001b[2J\\u0007"}',
}


async def test_what_only_looks_like_poison_runs(config, connection):
    ids = {name: await raw(connection, "read", payload) for name, payload in HARMLESS.items()}
    async with daemon(config):
        await until(connection, ENDED)
    rows = {name: await row(connection, each) for name, each in ids.items()}
    assert {name: (each["status"], each["attempt"]) for name, each in rows.items()} == dict.fromkeys(
        ids, ("completed", 1)
    )


REFUSED = {
    "NUL": ("payload", '{"a": "\\u0000"}', "unsupported Unicode escape"),
    "a lone high surrogate": ("payload", '{"a": "\\ud800"}', "Unicode"),
    "a lone low surrogate": ("payload", '{"a": "\\udc00"}', "Unicode"),
    "a surrogate in a key": ("payload", '{"\\udfff": 1}', "Unicode"),
    "NaN": ("payload", '{"a": NaN}', "invalid input syntax for type json"),
    "oversize": ("payload", orjson.dumps({"a": "x" * 65_536}).decode(), "payload_is_at_most_65536_bytes"),
    "1 MiB": ("payload", orjson.dumps({"a": "x" * 1_048_576}).decode(), "payload_is_at_most_65536_bytes"),
    "4001 BC": ("scheduled_at", "4001-01-01 BC", "time_is_between_2000_and_9000"),
    "year 294000": ("scheduled_at", "294000-01-01", "time_is_between_2000_and_9000"),
    "infinity": ("scheduled_at", "infinity", "time_is_between_2000_and_9000"),
    "-infinity": ("scheduled_at", "-infinity", "time_is_between_2000_and_9000"),
    "an infinite expiry": ("expires_at", "infinity", "time_is_between_2000_and_9000"),
    "year 300000": ("scheduled_at", "300000-01-01", "timestamp out of range"),
    "priority -1": ("priority", "-1", "priority_is_between_0_and_1000"),
    "priority 1001": ("priority", "1001", "priority_is_between_0_and_1000"),
    "priority 40000": ("priority", "40000", "out of range"),
    "no attempts": ("max_attempts", "0", "max_attempts_is_between_1_and_10000"),
    "too many attempts": ("max_attempts", "10001", "max_attempts_is_between_1_and_10000"),
    "a type in capitals": ("job_type", "READ", "job_type_is_a_lower_case_name"),
    "a look-alike type": ("job_type", "re\u0430d", "job_type_is_a_lower_case_name"),
    "a long key": ("unique_key", "k" * 501, "key_is_at_most_500_bytes"),
    "a long tenant": ("tenant_id", "t" * 201, "text_is_at_most_200_bytes"),
}


@pytest.mark.parametrize("said", REFUSED)
async def test_refused_at_insert_with_the_reason(connection, said):
    """By plain insert and by worker.enqueue alike; the nine others are the producer's to insert again."""
    column, value, message = REFUSED[said]
    columns = {"job_type": "read", "payload": "{}"} | {column: value}
    literals = {name: "'" + text.replace("'", "''") + "'" for name, text in columns.items()}
    inserting = (
        f"insert into worker.job_queue ({', '.join(literals)}) values ({', '.join(literals.values())})",
        f"select worker.enqueue({', '.join(f'{name} => {text}' for name, text in literals.items())})",
    )
    for statement in inserting:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await connection.execute(statement)
        assert re.search(message, str(refused.value))
    assert await connection.fetchval("select count(*) from worker.job_queue") == 0


async def test_extremes_that_are_allowed_run(config, connection):
    ids = [
        await enqueue(connection, "read", {}, priority=priority, max_attempts=tries)
        for priority in (0, 1000)
        for tries in (1, 10_000)
    ]
    ids.append(await enqueue(connection, "read", {}, unique_key="k" * 500))
    ids.append(await enqueue(connection, "read", {}, tenant_id="t" * 200))
    async with daemon(config):
        await until(connection, ENDED)
    assert {(await row(connection, each))["status"] for each in ids} == {"completed"}


@pytest.mark.parametrize("attempt", [998, 9_998, 999_999])
async def test_the_backoff_of_a_huge_attempt_is_bounded(config, connection, attempt):
    """100 ** 999 is beyond a float: the ceiling rules, and neighbours of the batch are not held up."""
    tired = await enqueue(connection, "boom", {}, max_attempts=10_000)
    await connection.execute("update worker.job_queue set attempt = $2 where id = $1", tired, attempt)
    fresh = [await enqueue(connection, "read") for _ in range(9)]
    async with daemon(config):
        await until(connection, "select jsonb_array_length(errors) = 1 from worker.job_queue where id = $1", tired)
        await until(
            connection, "select bool_and(status = 'completed') from worker.job_queue where id = any ($1)", fresh
        )
    found = await connection.fetchrow(
        "select status, finish_reason, scheduled_at - clock_timestamp() <= '1h' from worker.job_queue where id = $1",
        tired,
    )
    ended = attempt + 1 >= 10_000
    assert tuple(found) == (("failed", "exhausted", True) if ended else ("pending", None, True))


async def test_types_that_nobody_declared_are_left_alone(config, connection):
    """Many, distinct: never claimed, and those that are declared run past them."""
    await connection.execute("select worker.enqueue('unknown_' || n) from generate_series(1, 500) n")
    known = await enqueue(connection, "read")
    async with daemon(config):
        await until(connection, "select status = 'completed' from worker.job_queue where id = $1", known)
    left = "select count(*) from worker.job_queue where status = 'pending' and attempt = 0"
    assert await connection.fetchval(left) == 500
