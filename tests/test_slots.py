"""Turns: how many at once, and that those who wait for a step connection hold no slot."""

from tests.heart import QUICK, configured, daemon, enqueue, job, until
from worker.attempt import Attempt
from worker.slots import Slots

GRAPH = """
[job.graph]
timeout = "2s"
retry = { first = "1ms" }
[job.graph.steps]
one = { sql = "one" }
[job.echo]
python = "tests.sample_jobs:echo"
"""
ONE = 'search_path = "public"\nsteps = 1'


def call(kind: str, rescues: int = 0) -> Attempt:
    return Attempt([job(rescues=rescues)], kind, lambda end: None)


def test_so_many_at_once() -> None:
    slots = Slots(2, 2)
    first, second, third, fourth = (call("python") for _ in range(4))
    assert [slots.take(each) for each in (first, second, third, fourth)] == [True, True, False, False]
    assert slots.waiting() == [third, fourth]
    assert slots.free(first) is third
    assert slots.free(second) is fourth
    assert slots.free(third) is None


def test_graphs_that_wait_for_a_connection_hold_no_slot() -> None:
    slots = Slots(2, 1)
    graphs = [call("steps") for _ in range(3)]
    assert [slots.take(graph) for graph in graphs] == [True, False, False]
    other, late = call("python"), call("http")
    assert slots.take(other)
    assert not slots.take(late)
    assert slots.free(other) is late  # the older ones have no connection yet
    assert slots.free(graphs[0]) is graphs[1]
    assert slots.free(late) is None


def test_first_come_first_served_whatever_the_kind() -> None:
    slots = Slots(1, 1)
    running, graph, python = call("python"), call("steps"), call("python")
    assert slots.take(running)
    assert not slots.take(graph)
    assert not slots.take(python)
    assert slots.free(running) is graph
    assert slots.free(graph) is python


def test_who_leaves_the_line_gets_no_turn() -> None:
    slots = Slots(1, 1)
    running, graph = call("python"), call("steps")
    slots.take(running)
    slots.take(graph)
    assert slots.leave(graph)
    assert not slots.leave(graph)
    assert not slots.leave(running)
    assert slots.free(running) is None
    assert slots.take(graph)


def test_a_suspect_begins_when_nobody_runs_and_runs_alone() -> None:
    slots = Slots(3, 3)
    first, second, late, later = (call("python") for _ in range(4))
    suspect = call("python", rescues=2)
    assert slots.take(first)
    assert slots.take(second)
    assert [slots.take(each) for each in (suspect, late, later)] == [False, False, False]
    assert slots.free(first) is None  # one of them still runs
    assert slots.free(second) is suspect
    assert slots.alone is suspect
    assert slots.next() is None
    assert slots.free(suspect) is late
    assert slots.next() is later
    assert slots.next() is None
    assert slots.alone is None


def test_others_may_join_it_in_time() -> None:
    slots = Slots(3, 3)
    suspect, waiting = call("python", rescues=2), call("python")
    assert slots.take(suspect)
    assert not slots.take(waiting)
    slots.join(waiting)  # who is not alone makes no difference
    assert slots.next() is None
    slots.join(suspect)
    assert slots.next() is waiting
    assert slots.take(call("python"))


def test_a_suspect_that_cannot_be_alone_in_time_goes_with_the_others() -> None:
    slots = Slots(2, 2)
    running, suspect, behind = call("python"), call("python", rescues=2), call("python")
    assert slots.take(running)
    assert not slots.take(suspect)
    assert not slots.take(behind)
    assert slots.hurry(suspect) is suspect
    assert slots.alone is None
    assert slots.free(running) is behind
    assert slots.take(call("python")) is False


def test_a_suspect_that_leaves_the_line_holds_nobody_up() -> None:
    slots = Slots(2, 2)
    running, suspect = call("steps"), call("steps", rescues=3)
    assert slots.take(running)
    assert not slots.take(suspect)
    assert slots.leave(suspect)
    assert slots.take(call("python"))


async def test_no_attempt_times_out_while_it_waits_for_the_one_connection(dsn, tmp_path, connection):
    await connection.execute("create function one() returns void language sql as 'select pg_sleep(0.2)'")
    for _ in range(20):  # twice as long, all together, as one attempt may take
        await enqueue(connection, "graph")
    async with daemon(configured(tmp_path, dsn, GRAPH, worker=QUICK, database=ONE)):
        await until(connection, "select bool_and(status = 'completed') from worker.job_queue")
    found = await connection.fetchrow("select max(attempt) as attempts, count(errors) as errors from worker.job_queue")
    assert tuple(found) == (1, 0)


async def test_graphs_that_wait_for_it_are_in_nobodys_way(dsn, tmp_path, connection, second):
    await connection.execute("create function one() returns void language sql as 'select pg_advisory_lock_shared(77)'")
    await second.execute("select pg_advisory_lock(77)")
    for _ in range(5):
        await enqueue(connection, "graph", priority=1)
    text = GRAPH.replace("2s", "10m")
    async with daemon(configured(tmp_path, dsn, text, worker=f"{QUICK}\nconcurrency = 2", database=ONE)):
        await until(connection, "select count(*) from pg_locks where locktype = 'advisory' and not granted")
        echo = await enqueue(connection, "echo")
        await until(connection, "select status = 'completed' from worker.job_queue where id = $1", echo)
        await second.execute("select pg_advisory_unlock_all()")
        await until(connection, "select bool_and(status = 'completed') from worker.job_queue")
    assert await connection.fetchval("select max(attempt) from worker.job_queue") == 1
