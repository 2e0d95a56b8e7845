"""The image, really built and really started, where buildah is. A part of .ci/run: WORKER_TEST_IMAGE=1 asks for it."""

import asyncio
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.deploy import buildah
from tests.heart import until
from tests.support import free_port, server_folder
from worker.embedded import start

UID = "10001"
FILE = """
environment = "test"
[job.greet]
arguments = { name = "name" }
steps = { say = { sql = "greet" } }
"""
GREET = "create function public.greet(name text) returns text language sql as $$ select 'Hello, ' || name $$"
BUILD_TOOLS = ("pip", "hatchling", "setuptools", "wheel", "trove_classifiers")

pytestmark = [
    pytest.mark.skipif("WORKER_TEST_IMAGE" not in os.environ, reason="WORKER_TEST_IMAGE=1 builds and starts it"),
    pytest.mark.skipif(buildah.missing() is not None, reason=str(buildah.missing())),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[str, str]]:
    """The image built; what there is to tell of it."""
    with buildah.alone():
        made, built = buildah.provide_base(), buildah.build()
        try:
            yield {
                "stand-in for the base": f"{buildah.size(buildah.BASE)}, {made:.0f} s",
                "image": f"{buildah.size(buildah.TAG)}, {built:.0f} s",
            }
        finally:
            buildah.buildah("rmi", "--force", buildah.TAG)
            buildah.buildah("rmi", "--prune", check=False)


@pytest.fixture
def image(figures: dict[str, str]) -> Iterator[str]:
    with buildah.container() as name:
        yield name


@pytest.fixture
def loopback() -> Iterator[str]:
    """The address of a database that another user reaches as well."""
    with server_folder() as folder:
        server = start(folder, settings={"fsync": "off"}, die_with_parent=True, tcp_port=(port := free_port()))
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        server.stop("immediate")


class Image:
    """Runs what the image would run."""

    def __init__(self, name: str, folder: Path, dsn: str) -> None:
        config = folder / "worker.toml"
        config.write_text(FILE, encoding="utf-8")
        self._name, self._folder, self._dsn = name, folder, dsn
        self._mounts = {config: "/app/worker.toml"}
        self._says = buildah.inspected()

    def start(self, *arguments: str) -> buildah.Running:
        environment = {"DATABASE_URL": self._dsn}
        inside = buildah.inside(self._name, *self._command(arguments), mounts=self._mounts, environment=environment)
        return buildah.Running(inside, self._folder / "said")

    def sealed(self, root: Path, *arguments: str) -> buildah.Running:
        """With nothing that it does not need."""
        environment = dict(each.split("=", 1) for each in self._says["Env"]) | {"DATABASE_URL": self._dsn}
        (config,) = self._mounts
        sealed = buildah.sealed(root, *self._command(arguments), config=config, environment=environment)
        return buildah.Running(sealed, self._folder / "said")

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return ["worker", *arguments] if arguments else self._says["Cmd"]

    def run(self, *arguments: str) -> str:
        running = self.start(*arguments)
        assert running.ends() == 0, running.said()
        return running.said()


def test_what_it_says_of_itself(figures: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    says = buildah.inspected()
    assert (says.get("Entrypoint") or [], says["Cmd"], says["User"]) == ([], ["worker", "run"], f"{UID}:{UID}")
    assert (says["StopSignal"], says["WorkingDir"]) == ("SIGTERM", "/app")
    assert {"PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"} <= set(says["Env"])
    assert not [each for each in says["Env"] if each.startswith(("PIP", "UV"))]
    with capsys.disabled():
        print("".join(f"\n{name}: {told}" for name, told in figures.items()))


def test_it_holds_no_tools_and_nothing_of_the_build(image: str) -> None:
    with buildah.tree(image) as root:
        packages = next((root / "opt/worker/lib").glob("python3*/site-packages"))
        assert [name for name in BUILD_TOOLS if list(packages.glob(f"{name}*"))] == []
        assert not (root / "etc/pip.conf").exists()
        assert not (root / "src").exists()
        assert not (root / "build").exists()
        assert list((packages / "worker/_sql").rglob("*.sql"))
        assert (packages / "worker/_worker.toml").exists()
        assert not (packages / "direct_url.json").exists()
        for path in (root / "opt/worker").rglob("*"):
            found = path.lstat()
            assert found.st_uid == 0, path
            assert path.is_symlink() or not found.st_mode & stat.S_IWOTH, path
        with buildah.container(buildah.BASE) as below, buildah.tree(below) as base:
            lent = [path.relative_to("/") for path in buildah.lent(buildah.pip_settings())]
            assert [path for path in lent if (root / path).exists() and not (base / path).exists()] == []


def test_its_verbs(image: str, tmp_path: Path) -> None:
    packed = Image(image, tmp_path, "postgresql://worker:geheim@db/x")
    assert "Usage" in packed.run("--help")
    shown = packed.run("config", "show")
    assert 'environment = "test"' in shown
    assert "geheim" not in shown


async def test_it_migrates_works_and_stops(image: str, tmp_path: Path, loopback: str) -> None:
    packed = Image(image, tmp_path, loopback)
    await asyncio.to_thread(packed.run, "migrate")
    connection = await asyncpg.connect(loopback)
    await connection.execute(GREET)
    daemon = packed.start()
    try:
        await asyncio.to_thread(daemon.says, "service.started")
        job = await connection.fetchval("""select worker.enqueue('greet', '{"name": "image"}')""")
        await until(connection, "select status = 'completed' from worker.jobs where id = $1", job)
        assert daemon.status("Uid").split() == [UID] * 4
        os.kill(daemon.inner(), signal.SIGTERM)
        assert await asyncio.to_thread(daemon.ends) == 0, daemon.said()
    finally:
        daemon.end()
        await connection.close()
    assert "service.stopped" in daemon.said()


async def test_sealed_it_works_as_process_one(image: str, tmp_path: Path, loopback: str) -> None:
    """Read-only, without a capability or a way to one."""
    packed = Image(image, tmp_path, loopback)
    connection = await asyncpg.connect(loopback)
    await connection.execute(GREET)
    with buildah.tree(image) as root:
        migrating = packed.sealed(root, "migrate")
        assert await asyncio.to_thread(migrating.ends) == 0, migrating.said()
        daemon = packed.sealed(root)
        try:
            await asyncio.to_thread(daemon.says, "service.started")
            job = await connection.fetchval("""select worker.enqueue('greet', '{"name": "sealed"}')""")
            await until(connection, "select status = 'completed' from worker.jobs where id = $1", job)
            assert daemon.status("Uid").split() == [UID] * 4
            assert daemon.status("Groups") == ""
            assert daemon.status("NSpid", daemon.first()).split()[-1] == "1"
            assert daemon.status("NoNewPrivs") == "1"
            assert {int(daemon.status(f"Cap{each}"), 16) for each in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
            assert not daemon.writes()
            os.kill(daemon.first(), signal.SIGTERM)
            assert await asyncio.to_thread(daemon.ends) == 0, daemon.said()
        finally:
            daemon.end()
            await connection.close()
    assert "service.stopped" in daemon.said()
