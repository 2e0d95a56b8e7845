"""When to look again, over a real database: the poll is 30 s and no test waits for it."""

import asyncio

import pytest

from tests.heart import configured, daemon, enqueue, heart, job, until
from worker import bell
from worker.bell import Bell
from worker.job_queue import Claimed

SLOW = 'poll = "30s"\nbeat = "100ms"'
ECHO = '[job.echo]\npython = "tests.sample_jobs:echo"\n'
ASLEEP = "select exists (select from worker.asleep)"
DONE = "select status = 'completed' from worker.job_queue where id = $1"
NOTHING = Claimed([], 0, 10, 10, None)
BELL_IS_ON = "select exists (select from worker.asleep where until > clock_timestamp())"


def found(xmin: int = 10, xmax: int = 10) -> Claimed:
    return Claimed([job()], 0, xmin, xmax, None)


@pytest.fixture
async def parts(dsn):
    async with heart(dsn) as opened:
        yield opened


@pytest.fixture
def made(parts):
    return Bell(parts.queue, 30.0, lambda: True)


async def test_a_ring_wakes(dsn, tmp_path, connection):
    async with daemon(configured(tmp_path, dsn, ECHO, worker=SLOW)):
        for _ in range(3):
            await until(connection, BELL_IS_ON)
            job_id = await enqueue(connection, "echo")
            await until(connection, DONE, job_id)


async def test_a_row_of_a_transaction_older_than_the_bell_is_found(dsn, tmp_path, connection, second):
    """Its insert saw no bell and rang nobody; it commits when the bell is on and the daemon has looked."""
    async with connection.transaction():
        job_id = await enqueue(connection, "echo")
        async with daemon(configured(tmp_path, dsn, ECHO, worker=SLOW)):
            await until(second, BELL_IS_ON)
            await connection.execute("commit")
            await until(second, DONE, job_id)
            await connection.execute("begin")


async def test_a_row_due_later_is_found_when_it_is_due(dsn, tmp_path, connection):
    async with daemon(configured(tmp_path, dsn, ECHO, worker=SLOW)):
        await until(connection, BELL_IS_ON)
        soon = await connection.fetchval("select worker.enqueue('echo', delay => '300 ms')")
        await until(connection, DONE, soon)


async def test_a_sleeper_is_rung_for_a_row_due_before_its_own(dsn, tmp_path, connection):
    async with daemon(configured(tmp_path, dsn, ECHO, worker=SLOW)):
        await connection.fetchval("select worker.enqueue('echo', delay => '20 s')")
        await until(connection, BELL_IS_ON)
        await until(connection, DONE, await enqueue(connection, "echo"))


async def test_finding_nothing_turns_it_on_and_much_turns_it_off(made, connection):
    await made.rest(NOTHING)
    assert await connection.fetchval(ASLEEP)
    for _ in range(bell.BUSY_LOOKS):
        await asyncio.wait_for(_rung(made, found(xmin=20)), 20)
    assert not await connection.fetchval(ASLEEP)


async def test_a_little_leaves_it_on(made, connection, monkeypatch):
    monkeypatch.setattr(bell, "BUSY_SPAN", 0.0)
    await made.rest(NOTHING)
    for _ in range(bell.BUSY_LOOKS + 1):
        await asyncio.wait_for(_rung(made, found(xmin=20)), 20)
    assert await connection.fetchval(ASLEEP)


async def _rung(made: Bell, looked: Claimed) -> None:
    made.ring()
    await made.rest(looked)


async def test_looks_follow_shortly_until_old_transactions_have_ended(made):
    await made.rest(NOTHING)
    for _ in range(6):  # xmin 10 < xmax 15 of the first look: somebody older than the bell is still under way
        await asyncio.wait_for(made.rest(Claimed([], 0, 10, 15, None)), 20)
    long = asyncio.create_task(made.rest(Claimed([], 0, 15, 15, None)))
    done, _ = await asyncio.wait({long}, timeout=0.2)
    assert not done  # now it sleeps
    made.ring()
    await asyncio.wait_for(long, 20)


async def test_turning_it_off_twice_is_no_trouble(made, connection):
    await made.off()
    await made.rest(NOTHING)
    await made.off()
    await made.off()
    assert not await connection.fetchval(ASLEEP)


async def test_a_ring_for_another_process_is_looked_into_a_little_later(made):
    made.heard(for_me=False)
    await made.rest(NOTHING)
    await asyncio.wait_for(made.rest(NOTHING), 20)


async def test_rings_that_come_often_and_for_nothing_make_one_look_together(made, monkeypatch):
    """Anybody may NOTIFY: after some looks in vain rings only count a little later, all of them once."""
    monkeypatch.setattr(bell, "VAIN_SPAN", 600.0)
    monkeypatch.setattr(bell, "BUSY_PAUSE", 0.0)
    await made.rest(NOTHING)
    for _ in range(bell.VAIN_LOOKS):
        made.heard(for_me=True)
        assert made._woken.is_set()
        made.clear()
        await _rested(made)
    for _ in range(3):
        made.heard(for_me=True)
        assert not made._woken.is_set()
    await asyncio.wait_for(made._woken.wait(), 20)
    made.clear()
    made.ring()  # what comes from within is believed
    assert made._woken.is_set()


async def test_a_ring_that_brought_a_job_is_believed_again(made, monkeypatch):
    monkeypatch.setattr(bell, "VAIN_SPAN", 600.0)
    monkeypatch.setattr(bell, "BUSY_PAUSE", 0.0)
    for looked in (NOTHING, *[found(xmin=20)] * (2 * bell.VAIN_LOOKS)):
        made.heard(for_me=True)
        assert made._woken.is_set()
        made.clear()
        await _rested(made, looked)


async def _rested(made: Bell, looked: Claimed = NOTHING) -> None:
    """As the poller does after a look, without the sleep."""
    made.ring()
    await made.rest(looked)
    made.clear()


async def test_the_rings_of_one_burst_are_not_in_vain(made, monkeypatch):
    """Four producers commit at once: the first ring's look finds all four rows, the others' find nothing."""
    monkeypatch.setattr(bell, "VAIN_SPAN", 600.0)
    for looked in (found(xmin=20), NOTHING) * (2 * bell.VAIN_LOOKS):
        made.clear()
        made._looked_for_a_ring = True
        await _rested(made, looked)
    assert not made._distrusts()


async def test_a_ring_of_its_own_does_not_wait_for_a_neighbours(made, monkeypatch):
    monkeypatch.setattr(bell, "NEIGHBOUR", 600.0)
    made.heard(for_me=False)
    assert not made._woken.is_set()
    made.heard(for_me=True)
    assert made._woken.is_set()
    assert made._later is None


async def test_the_pause_after_a_look_is_shorter_than_a_neighbours(made, monkeypatch):
    monkeypatch.setattr(bell, "NEIGHBOUR", 600.0)
    monkeypatch.setattr(bell, "BUSY_PAUSE", 0.1)
    made.clear()
    for for_me in (False, True, False):
        made.heard(for_me=for_me)
        assert not made._woken.is_set()
    await asyncio.wait_for(made._woken.wait(), 20)


async def test_rings_that_follow_a_look_closely_make_one_more(made, monkeypatch):
    monkeypatch.setattr(bell, "BUSY_PAUSE", 0.2)
    made.clear()
    for _ in range(3):
        made.heard(for_me=True)
        assert not made._woken.is_set()
    await asyncio.wait_for(made._woken.wait(), 20)
    assert made._later is None


async def test_the_bell_stays_off_for_a_lull(made, connection, monkeypatch):
    monkeypatch.setattr(bell, "LULL", 600.0)
    made.clear()
    await made.rest(found(xmin=20))
    for _ in range(3):
        made.clear()
        await asyncio.wait_for(made.rest(NOTHING), 20)
    assert not await connection.fetchval(ASLEEP)
    monkeypatch.setattr(bell, "LULL", 0.0)
    made.clear()
    await made.rest(NOTHING)
    assert await connection.fetchval(ASLEEP)


async def test_without_a_tested_listener_the_bell_stays_off(parts, connection):
    deaf = Bell(parts.queue, 0.01, lambda: False)
    await asyncio.wait_for(deaf.rest(NOTHING), 20)
    assert not await connection.fetchval(ASLEEP)


async def test_a_poll_alone_is_enough(dsn, tmp_path, connection):
    """wake = "poll": nobody rings."""
    async with daemon(configured(tmp_path, dsn, ECHO, worker='poll = "50ms"\nwake = "poll"')):
        await until(connection, DONE, await enqueue(connection, "echo"))
        assert not await connection.fetchval(ASLEEP)


async def test_no_wait_outlasts_the_mark_whatever_rings_come_in_between(parts, connection, monkeypatch):
    """A trickle of rings must not end in a sleep that nobody can ring: the mark's due is checked at every wait."""
    poll = 0.2
    made = Bell(parts.queue, poll, lambda: True)
    margins = []

    async def checked(seconds):
        left = await connection.fetchval("select extract(epoch from due - worker.now())::float8 from worker.asleep")
        margins.append(left - seconds)
        await asyncio.sleep(min(seconds, poll / 3))  # rung before its time, as by a trickle of jobs

    await made.rest(NOTHING)
    monkeypatch.setattr(made, "_wait", checked)
    for _ in range(12):
        await made.rest(NOTHING)
    assert min(margins) > 0
