"""The pool of child processes: real processes, real signals."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client import generate_latest

from tests import sample_calls as calls
from tests.heart import becomes, configured, daemon, enqueue, row, until, write_config
from tests.processes import Fleet, fleet
from worker import ChildDied, Completed, Permanent
from worker.children import Children
from worker.metrics import Metrics
from worker.outcome import Failed
from worker.testing import bench

JOBS = """
[retry]
first = "1ms"
max = "1ms"
[job.held]
python = "tests.sample_calls:held"
[job.late]
python = "tests.sample_calls:held"
timeout = "300ms"
retry = { max_attempts = 1 }
[job.brief]
python = "tests.sample_calls:brief"
[job.once_killed]
python = "tests.sample_calls:once_killed"
[job.worked]
python = "tests.sample_calls:worked"
retry = { max_attempts = 1000 }
[job.who]
python = "tests.sample_calls:who"
[job.left]
python = "tests.sample_calls:left"
timeout = "1m"
[job.unbounded]
python = "tests.sample_calls:left"
timeout = "24h"
deadline = "1h"
"""
SECRET = "hunter2hunter2"


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ours() -> list[int]:
    """Children of the pools in this process."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return [int(pid) for pid in found if b"worker/child.py" in _command(pid) and alive(int(pid))]


def kill_one() -> bool:
    for pid in ours()[:1]:
        os.kill(pid, signal.SIGKILL)  # not reaped before its parent has awaited something
        return True
    return False


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


async def written(path: Path) -> int:
    """The number that a child writes into a file."""
    await becomes(path.exists)
    return int(path.read_text(encoding="utf-8"))  # noqa: ASYNC240, a few bytes


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def children(metrics: Metrics) -> AsyncIterator[Children]:
    pool = Children(2, metrics, {SECRET})
    yield pool
    await pool.close()


@pytest.fixture
def daemons(tmp_path: Path, dsn: str) -> Iterator[Fleet]:
    with fleet(tmp_path, dsn) as started:
        yield started


class TestCalls:
    async def test_answers_with_what_the_function_returned(self, children: Children) -> None:
        pid, given = await children.call(calls.mine, {"a": [1, 2.5, "ä", b"\0"]})
        assert given == {"a": [1, 2.5, "ä", b"\0"]}
        assert pid != os.getpid()

    async def test_by_name_and_by_part(self, children: Children) -> None:
        assert (await children.call(calls.mine, given=7))[1] == 7
        assert (await children.call(calls.curried))[1] == "curried"

    async def test_large_ones_both_ways(self, children: Children) -> None:
        large = b"x" * 5_000_000
        assert (await children.call(calls.mine, large))[1] == large

    async def test_a_child_lives_on_with_what_its_module_keeps(self, children: Children) -> None:
        assert [await children.call(calls.count) for _ in range(3)] == [1, 2, 3]

    async def test_200_by_at_most_two_children(self, children: Children) -> None:
        answers = await asyncio.gather(*(children.call(calls.mine, number) for number in range(200)))
        assert [given for _, given in answers] == list(range(200))
        assert len({pid for pid, _ in answers}) <= 2

    async def test_never_more_at_once_than_the_bound(self, children: Children, tmp_path: Path) -> None:
        together = await asyncio.gather(*(children.call(calls.crowd, str(tmp_path), 0.02) for _ in range(20)))
        assert max(together) == 2

    async def test_no_child_before_the_first_call(self, children: Children, metrics: Metrics) -> None:
        assert b'worker_child_processes{state="idle"} 0.0' in generate_latest(metrics.registry)
        await children.call(calls.mine)
        assert b'worker_child_processes{state="idle"} 1.0' in generate_latest(metrics.registry)


class TestErrors:
    @pytest.mark.parametrize(
        ("how", "kind", "text"),
        [
            ("value", ValueError, "no such thing"),
            ("permanent", Permanent, "never"),
            ("awkward", RuntimeError, "Awkward: this and that"),
            ("quit", RuntimeError, "SystemExit: 3"),
        ],
    )
    async def test_what_it_raised_is_raised(self, children: Children, how: str, kind: type, text: str) -> None:
        with pytest.raises(kind, match=text) as caught:
            await children.call(calls.fail, how)
        assert "in fail" in caught.value.__notes__[0]
        assert await children.call(calls.count) == 1

    @pytest.mark.parametrize(
        ("function", "argument", "text"),
        [
            (lambda: None, None, "cannot be called in a child process"),
            (calls.mine, (n for n in ()), "mine cannot be called in a child process: .* 'generator'"),
            (calls.coroutine, None, "coroutine is a coroutine function"),
        ],
    )
    async def test_what_cannot_be_handed_over(
        self, children: Children, function: Callable[..., Any], argument: Any, text: str
    ) -> None:
        with pytest.raises(TypeError, match=text):
            await children.call(function, argument)

    async def test_a_function_of_main_is_told_from_others(self, children: Children) -> None:
        def stray() -> None: ...

        stray.__module__ = "__main__"
        with pytest.raises(TypeError, match="put it into a module"):
            await children.call(stray)

    async def test_nor_can_a_result_that_is_no_data(self, children: Children) -> None:
        with pytest.raises(TypeError, match="what it returned cannot be pickled"):
            await children.call(calls.unpicklable)
        assert await children.call(calls.count) == 1


class TestDeaths:
    @pytest.mark.parametrize(
        ("how", "text"),
        [
            ("exit", "exit code 3"),
            ("kill", "SIGKILL"),
            ("crash", "SIGSEGV"),
            ("fork", "SIGKILL"),
            ("close", "exit code 1"),
        ],
    )
    async def test_fail_their_own_call_alone(
        self, children: Children, metrics: Metrics, tmp_path: Path, how: str, text: str
    ) -> None:
        other = asyncio.create_task(children.call(calls.sleep, str(tmp_path / "other"), 0.2))
        await written(tmp_path / "other")
        with pytest.raises(ChildDied, match=text):
            await children.call(calls.die, how)
        assert await children.call(calls.count) == 1
        await other
        assert b"worker_child_processes_died_total 1.0" in generate_latest(metrics.registry)

    async def test_of_an_idle_one_costs_nothing(self, children: Children) -> None:
        pid, _ = await children.call(calls.mine)
        os.kill(pid, signal.SIGKILL)
        await becomes(lambda: not any(each.pid == pid and not each.gone for each in children._idle))
        other, _ = await children.call(calls.mine)
        assert other != pid

    async def test_of_an_idle_one_is_told_though_nobody_calls(self, children: Children, metrics: Metrics) -> None:
        pid, _ = await children.call(calls.mine)
        os.kill(pid, signal.SIGKILL)
        await becomes(lambda: b"worker_child_processes_died_total 1.0" in generate_latest(metrics.registry))
        assert b'worker_child_processes{state="idle"} 0.0' in generate_latest(metrics.registry)

    async def test_in_a_row_leave_the_pool_whole(self, children: Children) -> None:
        came = await asyncio.gather(*(children.call(calls.die, "exit") for _ in range(10)), return_exceptions=True)
        assert [type(each) for each in came] == [ChildDied] * 10
        assert {given for _, given in await asyncio.gather(*(children.call(calls.mine, n) for n in range(4)))} == {
            *range(4)
        }


class TestTheEndOfTheWait:
    @pytest.mark.parametrize("call", [calls.sleep, calls.spin, calls.deaf])
    async def test_is_the_end_of_the_child(
        self, children: Children, tmp_path: Path, call: Callable[[str], None]
    ) -> None:
        waiting = asyncio.create_task(children.call(call, str(tmp_path / "pid")))
        pid = await written(tmp_path / "pid")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not alive(pid)
        assert (await children.call(calls.mine))[0] != pid

    async def test_runs_its_finally_blocks(self, children: Children, tmp_path: Path) -> None:
        waiting = asyncio.create_task(children.call(calls.tidy, str(tmp_path / "pid")))
        await written(tmp_path / "pid")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (tmp_path / "pid.tidy").exists()

    async def test_is_the_end_of_what_it_started(self, children: Children, tmp_path: Path) -> None:
        waiting = asyncio.create_task(children.call(calls.parent, str(tmp_path / "pid")))
        pid = await written(tmp_path / "pid")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await becomes(lambda: not alive(pid))

    async def test_by_a_timeout_too(self, children: Children, tmp_path: Path) -> None:
        async def bounded() -> None:
            async with limit:
                await children.call(calls.sleep, str(tmp_path / "pid"))

        limit = asyncio.timeout(None)
        waiting = asyncio.create_task(bounded())
        pid = await written(tmp_path / "pid")
        limit.reschedule(asyncio.get_running_loop().time())
        with pytest.raises(TimeoutError):
            await waiting
        assert not alive(pid)

    async def test_while_it_waits_for_its_turn_ends_nobody(self, children: Children, tmp_path: Path) -> None:
        running = [asyncio.create_task(children.call(calls.sleep, str(tmp_path / name), 0.3)) for name in "ab"]
        pids = [await written(tmp_path / name) for name in "ab"]
        waiting = asyncio.create_task(children.call(calls.mine))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.gather(*running)
        assert (await children.call(calls.mine))[0] in pids

    async def test_twice_asked_still_bounds_them(self, children: Children, tmp_path: Path) -> None:
        waiting = [asyncio.create_task(children.call(calls.deaf, str(tmp_path / name))) for name in "ab"]
        pids = [await written(tmp_path / name) for name in "ab"]
        for each in waiting:
            each.cancel()
        await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await children.call(calls.mine)
        assert not all(alive(pid) for pid in pids)

    async def test_close_ends_all_of_them(self, metrics: Metrics, tmp_path: Path) -> None:
        pool = Children(2, metrics)
        idle, _ = await pool.call(calls.mine)
        running = asyncio.create_task(pool.call(calls.sleep, str(tmp_path / "a")))
        await written(tmp_path / "a")
        more = asyncio.create_task(pool.call(calls.deaf, str(tmp_path / "b")))
        pids = {idle, await written(tmp_path / "a"), await written(tmp_path / "b")}
        await pool.close()
        await asyncio.gather(running, more, return_exceptions=True)
        assert not {pid for pid in pids if alive(pid)}
        with pytest.raises(Exception, match="the daemon is stopping"):
            await pool.call(calls.mine)


class TestWhatTheyInherit:
    async def test_no_connection_and_no_secret(
        self, children: Children, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@nowhere/db")
        monkeypatch.setenv("APP_KEY", f"Bearer {SECRET}")
        monkeypatch.setenv("NOTIFY_SOCKET", "/run/none")
        monkeypatch.setenv("APP_COLOUR", "green")
        found = await children.call(calls.inherited)
        assert {"DATABASE_URL", "APP_KEY", "NOTIFY_SOCKET"} & found["environment"].keys() == set()
        assert found["environment"]["APP_COLOUR"] == "green"
        assert sum(link.startswith("socket:") for link in found["open"]) == 1  # to us
        assert found["folder"] == str(Path.cwd())


class TestJobs:
    """A daemon whose handlers call children."""

    async def test_200_of_them(self, connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
        async with daemon(configured(tmp_path, dsn, JOBS)):
            await connection.execute("select worker.enqueue('who', to_jsonb(n)) from generate_series(1, 200) n")
            await until(connection, "select count(*) = 200 from worker.job_queue where status = 'completed'")
        results = await connection.fetch(
            "select result ->> 0 as pid, result ->> 1 = payload::text as same from worker.job_queue"
        )
        assert all(each["same"] for each in results)
        assert len({each["pid"] for each in results}) <= 2

    async def test_cancel_ends_the_child(self, connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
        async with daemon(configured(tmp_path, dsn, JOBS)):
            job = await enqueue(connection, "held", {"path": str(tmp_path / "pid")})
            pid = await written(tmp_path / "pid")
            await connection.execute("select worker.cancel($1)", job)
            await until(connection, "select status = 'cancelled' from worker.job_queue where id = $1", job)
            assert not alive(pid)  # before the row says so
            assert (tmp_path / "pid.tidy").exists()

    async def test_so_does_a_timeout(self, connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> None:
        async with daemon(configured(tmp_path, dsn, JOBS)):
            job = await enqueue(connection, "late", {"path": str(tmp_path / "pid")})
            await until(connection, "select status = 'failed' from worker.job_queue where id = $1", job)
            assert (await row(connection, job))["finish_reason"] == "timeout"
            assert not (tmp_path / "pid").exists() or not alive(await written(tmp_path / "pid"))

    async def test_a_killed_child_costs_one_attempt(
        self, connection: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        async with daemon(configured(tmp_path, dsn, JOBS)):
            job = await enqueue(connection, "once_killed", {"path": str(tmp_path / "pid")})
            other = await enqueue(connection, "brief", {"path": str(tmp_path / "other"), "seconds": 0.5})
            os.kill(await written(tmp_path / "pid"), signal.SIGKILL)
            await until(connection, "select count(*) = 2 from worker.job_queue where status = 'completed'")
        found = await row(connection, job)
        assert (found["attempt"], (await row(connection, other))["attempt"]) == (2, 1)
        assert "ChildDied: child process" in found["errors"]

    async def test_killed_ones_by_the_dozen_lose_no_job(
        self, connection: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        done = "select count(*) = 100 from worker.job_queue where status = 'completed'"
        async with daemon(configured(tmp_path, dsn, JOBS)):
            await connection.execute("select worker.enqueue('worked') from generate_series(1, 100) n")
            for _ in range(12):
                await becomes(kill_one)
            await until(connection, done, seconds=60)
        assert not ours()

    async def test_time_left_is_that_of_the_attempt(
        self, connection: asyncpg.Connection, dsn: str, tmp_path: Path
    ) -> None:
        async with bench(dsn, write_config(tmp_path, JOBS)) as at:
            timed, bound = await at.run(await at.enqueue("left")), await at.run(await at.enqueue("unbounded"))
        assert isinstance(timed, Completed)
        assert isinstance(bound, Completed)
        assert 0 < timed.result <= 60 < bound.result <= 3600

    async def test_the_bench_has_the_same_pool(self, dsn: str, connection: asyncpg.Connection, tmp_path: Path) -> None:
        async with bench(dsn, write_config(tmp_path, JOBS)) as at:
            who = await at.run(await at.enqueue("who", {"n": 1}))
            late = await at.run(await at.enqueue("late", {"path": str(tmp_path / "pid")}))
        assert isinstance(who, Completed)
        assert who.result[1] == {"n": 1}
        assert isinstance(late, Failed)
        assert not alive(who.result[0])


class TestProcesses:
    """Daemons of their own, with signals."""

    async def test_kill_9_of_the_daemon_leaves_no_child(
        self, daemons: Fleet, connection: asyncpg.Connection, tmp_path: Path
    ) -> None:
        first = daemons.start(write_config(tmp_path, JOBS))
        for name in "ab":
            await enqueue(connection, "held", {"path": str(tmp_path / name)})
        pids = [await written(tmp_path / name) for name in "ab"]
        first.kill()
        await becomes(lambda: not any(alive(pid) for pid in pids))

    async def test_a_stop_lets_a_call_finish_within_grace(
        self, daemons: Fleet, connection: asyncpg.Connection, tmp_path: Path
    ) -> None:
        first = daemons.start(write_config(tmp_path, JOBS))
        job = await enqueue(connection, "brief", {"path": str(tmp_path / "pid"), "seconds": 1.0})
        pid = await written(tmp_path / "pid")
        first.send(signal.SIGTERM)
        assert first.ends() == 0
        assert ((await row(connection, job))["status"], alive(pid)) == ("completed", False)

    async def test_a_stop_ends_what_takes_longer_and_hands_the_job_back(
        self, daemons: Fleet, connection: asyncpg.Connection, tmp_path: Path
    ) -> None:
        first = daemons.start(write_config(tmp_path, JOBS, worker='grace = "200ms"'))
        job = await enqueue(connection, "held", {"path": str(tmp_path / "pid")})
        pid = await written(tmp_path / "pid")
        first.send(signal.SIGTERM)
        assert first.ends() == 0
        found = await row(connection, job)
        assert (found["status"], found["attempt"], alive(pid)) == ("pending", 0, False)
        assert (tmp_path / "pid.tidy").exists()

    async def test_ctrl_c_in_the_terminal_is_not_the_childs(
        self, daemons: Fleet, connection: asyncpg.Connection, tmp_path: Path
    ) -> None:
        first = daemons.start(write_config(tmp_path, JOBS))
        job = await enqueue(connection, "brief", {"path": str(tmp_path / "pid"), "seconds": 0.5})
        pid = await written(tmp_path / "pid")
        assert os.getpgid(pid) == pid  # a group of its own
        os.kill(pid, signal.SIGINT)
        first.send(signal.SIGINT)
        assert first.ends() == 0
        assert (await row(connection, job))["status"] == "completed"
