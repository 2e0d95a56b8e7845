"""What daemons counted, added up: series for the exporter, spans of five minutes for the page."""

import asyncio
import json
import random
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, refused
from worker.series import FAST, WAIT

Session = Callable[..., Awaitable[Queue]]
MINUTE = timedelta(minutes=1)
FINISHED = "worker_jobs_finished_total"
ZEROES = [0] * 19


def count(series: str = FINISHED, value: Any = 1, **labels: Any) -> dict[str, Any]:
    return {"series": series, "labels": labels, "value": value}


def attempt(job_type: Any = "work", **columns: Any) -> dict[str, Any]:
    given = {"completed": 0, "failed": 0, "again": 0, "other": 0, "waits": ZEROES, "runs": ZEROES}
    return {"job_type": job_type, **given, **columns}


async def add(queue: Queue, counts: Any = (), attempts: Any = ()) -> int:
    given = [json.dumps(list(each) if isinstance(each, tuple) else each) for each in (counts, attempts)]
    return await queue.db.fetchval("select worker.add_counts($1::jsonb, $2::jsonb)", *given)


async def tally(queue: Queue) -> dict[tuple[str, str], float]:
    rows = await queue.db.fetch("select series, labels, value from worker.tally")
    return {(series, " ".join(json.loads(labels).values())): value for series, labels, value in rows}


def heap(seconds: Sequence[float], bounds: Sequence[float]) -> list[int]:
    counts = [0] * (len(bounds) + 1)
    for each in seconds:
        counts[bisect_left(bounds, each)] += 1
    return counts


async def test_it_adds_up(queue: Queue) -> None:
    for _ in range(2):
        touched = await add(queue, [count(job_type="a"), count(job_type="a", value=2.5), count("worker_rescues_total")])
        assert touched == 2
    assert await tally(queue) == {(FINISHED, "a"): 7.0, ("worker_rescues_total", ""): 2.0}


async def test_the_buckets_are_those_of_the_metrics(queue: Queue) -> None:
    row = await queue.db.fetchrow("select worker.wait_bounds(), worker.run_bounds()")
    assert (tuple(row[0]), tuple(row[1])) == (WAIT, FAST)


async def test_attempts_go_to_the_five_minutes_that_run(queue: Queue) -> None:
    for minutes in (0, 4, 5):
        await queue.clock(NOON + minutes * MINUTE)
        await add(
            queue, attempts=[attempt(completed=2, failed=1, waits=[1, *ZEROES[2:], 2]), attempt("other", again=1)]
        )
    rows = await queue.db.fetch(
        "select job_type, at - $1::timestamptz, completed, failed, again, waits[1], waits[19] from worker.trend"
        " order by 1, 2",
        NOON,
    )
    assert [tuple(row) for row in rows] == [
        ("other", 0 * MINUTE, 0, 0, 2, 0, 0),
        ("other", 5 * MINUTE, 0, 0, 1, 0, 0),
        ("work", 0 * MINUTE, 4, 2, 0, 2, 4),
        ("work", 5 * MINUTE, 2, 1, 0, 1, 2),
    ]


@pytest.mark.parametrize(
    "counts",
    [
        None, {}, "x", [1], [{}], [{**count(), "more": 1}], [count("x")], [count("worker_")], [count("worker_a-b")],
        [count("worker_" + "x" * 101)], [count(value=-1)], [count(value="1")], [count(value=None)], [count(value=1e16)],
        [{**count(), "labels": []}], [{**count(), "labels": None}], [count(job_type=1)], [count(job_type="x" * 64)],
        [count(Job="x")], [count(**{f"l{n}": "x" for n in range(5)})], [count()] * 10_001,
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
async def test_counts_that_no_daemon_makes_are_refused(queue: Queue, counts: Any) -> None:
    with refused("22023"):
        await add(queue, counts)
    assert await tally(queue) == {}


@pytest.mark.parametrize(
    "attempts",
    [
        None, {}, [1], [{}], [{**attempt(), "more": 1}], [attempt("A")], [attempt(1)], [attempt("")],
        [attempt("x" * 64)], [attempt(), attempt()], [attempt(completed=-1)], [attempt(failed=0.5)],
        [attempt(again="1")], [attempt(other=None)], [attempt(completed=10**8)], [attempt(waits=None)],
        [attempt(waits=ZEROES[1:])], [attempt(runs=[*ZEROES, 0])], [attempt(runs=[-1, *ZEROES[1:]])],
        [attempt(runs=[None, *ZEROES[1:]])], [attempt(f"t{n}") for n in range(1001)],
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
async def test_attempts_that_no_daemon_makes_are_refused(queue: Queue, attempts: Any) -> None:
    with refused("22023"):
        await add(queue, [count()], attempts)
    assert (await tally(queue), await queue.count("worker.trend")) == ({}, 0)


async def test_many_at_once_in_any_order_never_wait_for_each_other(queue: Queue, session: Session) -> None:
    """Ten rounds of four daemons, each with the same hundred series shuffled: a deadlock would be an error."""
    daemons = [await session("runner") for _ in range(4)]
    series = [count(job_type=f"t{n}") for n in range(100)]
    attempts = [attempt(f"t{n}", completed=1) for n in range(20)]

    async def one(daemon: Queue) -> None:
        done = 0
        while done < 10:
            try:
                await add(daemon, random.sample(series, 100), random.sample(attempts, 20))
                done += 1
            except asyncpg.LockNotAvailableError:  # a busy machine; a deadlock would be another error
                continue

    await asyncio.gather(*map(one, daemons))
    assert set((await tally(queue)).values()) == {40.0}
    assert await queue.db.fetchval("select sum(completed) from worker.trend") == 800


async def test_who_comes_second_does_not_wait_long(queue: Queue, session: Session) -> None:
    first, second = await session("runner"), await session("runner")
    async with first.db.transaction():
        await add(first, [count()])
        with refused("55P03"):
            await add(second, [count()])
    await add(second, [count()])
    assert (await tally(queue))[FINISHED, ""] == 2


async def test_beyond_ten_thousand_series_new_ones_are_other(queue: Queue) -> None:
    filled = (
        "insert into worker.tally (series, labels) select 'worker_x_total', jsonb_build_object('job_type', 't' || n)"
    )
    await queue.db.execute(f"{filled} from generate_series(1, 10000) n")
    new = {"job_type": "new", "step": "s", "le": "+Inf"}
    await add(queue, [count(**new), count(**{**new, "job_type": "newer"}), count("worker_x_total", job_type="t7")])
    assert (await tally(queue))["worker_x_total", "t7"] == 1
    found = await queue.db.fetch("select labels::text, value from worker.tally where series = $1", FINISHED)
    assert [(json.loads(labels), value) for labels, value in found] == [
        ({"job_type": "other", "step": "other", "le": "+Inf"}, 2)
    ]
    await queue.db.execute(f"{filled} from generate_series(10001, 20000) n")
    assert await add(queue, [count("worker_y_total")]) == 0


@pytest.mark.parametrize("q", [0.5, 0.95])
@pytest.mark.parametrize(
    "seconds", [[0.003], [0.2, 0.3, 4.0], [1e6], [0.01] * 10, [random.Random(1).expovariate(1) for _ in range(500)]]
)
async def test_quantiles_lie_in_the_bucket_of_the_true_one(queue: Queue, q: float, seconds: list[float]) -> None:
    counts = heap(seconds, FAST)
    found = await queue.db.fetchval("select worker.quantile($1, worker.run_bounds(), $2)", counts, q)
    heaped, wanted = 0, q * len(seconds)
    place = next(place for place, n in enumerate(counts) if (heaped := heaped + n) >= wanted and n)
    if place == len(FAST):
        assert found == FAST[-1]
    else:
        lower = FAST[place - 1] if place else 0.0
        below = heaped - counts[place]
        assert found == pytest.approx(lower + (FAST[place] - lower) * (wanted - below) / counts[place])


async def test_nothing_counted_has_no_quantile(queue: Queue) -> None:
    assert await queue.db.fetchval("select worker.quantile($1, worker.run_bounds(), 0.5)", ZEROES) is None


async def test_trends_by_type_and_span(queue: Queue) -> None:
    for minutes, runs in ((-70, [60.0]), (-11, [0.2, 0.2]), (-7, [0.2]), (0, [5.0] * 3)):
        await queue.clock(NOON + minutes * MINUTE)
        done = attempt(completed=len(runs), failed=1, again=2, other=3, runs=heap(runs, FAST))
        await add(queue, attempts=[done])
    await queue.clock(NOON)
    asked = "select * from worker.trends($1, $2)"
    rows = await queue.db.fetch(asked, 60 * MINUTE, 15 * MINUTE)
    assert [
        (row["job_type"], row["at"], row["completed"], row["failed"], row["again"], row["other"]) for row in rows
    ] == [
        ("work", NOON - 15 * MINUTE, 3, 2, 4, 6),
        ("work", NOON, 3, 1, 2, 3),
    ]
    assert [row["run_p50"] for row in rows] == [pytest.approx(0.1 + 0.15 / 2), pytest.approx(2.5 + 2.5 / 2)]
    assert [row["wait_p50"] for row in rows] == [None, None]
    assert len(await queue.db.fetch(asked, 120 * MINUTE, MINUTE)) == 4  # five minutes at least
    (one,) = await queue.db.fetch(asked, 30 * MINUTE, 24 * 60 * MINUTE)  # whole spans: the older one is in it, too
    assert one["completed"] == 7


async def test_prune_forgets_old_spans_and_series_of_nobody(queue: Queue) -> None:
    await queue.declare("work")
    await queue.clock(NOON - timedelta(days=9))
    await add(queue, [], [attempt()])
    await queue.clock(NOON - timedelta(days=7))
    await add(queue, [], [attempt()])
    await queue.clock(NOON)
    labels = ({"job_type": "work"}, {"job_type": "gone"}, {"job_type": "other"}, {"result": "jobs"}, {})
    await add(queue, [count(**each) for each in labels])
    await queue.db.execute("select worker.prune('{}')")
    assert await queue.db.fetch("select at from worker.trend") == [(NOON - timedelta(days=7),)]
    assert {label for _, label in await tally(queue)} == {"work", "other", "jobs", ""}


@pytest.mark.parametrize("who", ["app", "tenant", "operator", "reader", "nobody"])
async def test_only_daemons_add(session: Session, who: str) -> None:
    one = await session(who)
    for statement in (
        "select worker.add_counts('[]', '[]')",
        "insert into worker.tally (series) values ('worker_x')",
        "delete from worker.trend",
    ):
        with refused("42501"):
            await one.db.execute(statement)


@pytest.mark.parametrize(("who", "may"), [("reader", True), ("runner", True), ("app", False), ("tenant", False)])
async def test_readers_read(queue: Queue, session: Session, who: str, may: bool) -> None:
    await add(queue, [count()], [attempt(runs=heap([1.0], FAST), waits=heap([1.0], WAIT))])
    one = await session(who)
    for asked in (
        "select run_p95 from worker.trends('1 hour', '5 minutes')",
        "select worker.exported()",
        "select value from worker.tally",
    ):
        if may:
            assert await one.db.fetchval(asked)
        else:
            with refused("42501"):
                await one.db.execute(asked)
