"""docs/guide.md, block by block: its files are saved, its commands run, and what it shows is what they say."""

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from tests.conftest import Given
from tests.heart import until
from tests.support import ROOT
from worker.embedded import Embedded, find_prefix

PAGE = ROOT / "docs" / "guide.md"
SECONDS = 60


class Block(NamedTuple):
    """A fenced block: its language, what else its fence says, its text."""

    language: str
    rest: str
    text: str


def blocks() -> Iterator[Block]:
    for info, text in re.findall(r"^```(\w[^\n]*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        language, _, rest = info.partition(" ")
        yield Block(language, rest, text)


def shows(expected: str, said: str) -> list[str]:
    """The expected lines that were not said; numbers, times and blanks may differ, … stands for anything."""

    def pattern(line: str) -> str:
        held = re.sub(r"\|[█ ]+\||\d[\d.:]* m?s\b", "…", line)
        parts = (re.sub(r"\d[\d.:]*", "0", part) for part in held.split("…"))
        free = ".*".join(re.escape(part) for part in parts)
        return r"\s*" + re.sub(r"(?:\\ )+", r"\\s+", free).replace("0", r"\d[\d.:]*") + r".*"

    lines = said.splitlines()
    return [line for line in expected.splitlines() if not any(re.fullmatch(pattern(line), each) for each in lines)]


class Reader:
    """Somebody who does word by word what the page says, in an empty folder."""

    def __init__(self, folder: Path, dsn: str) -> None:
        tools = folder / "bin"
        tools.mkdir()
        (tools / "worker").write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m worker "$@"\n')
        (tools / "worker").chmod(0o755)
        self.folder = folder / "shop"
        self.folder.mkdir()
        path = f"{tools}:{find_prefix() / 'bin'}:/usr/bin:/bin"
        self.environment = {"PATH": path, "HOME": str(folder), "DATABASE_URL": dsn, "PYTHONPATH": str(ROOT)}
        self.said = ""
        self.background: list[subprocess.Popen[bytes]] = []

    def does(self, block: Block) -> None:
        if block.language in ("sql", "toml"):
            (name,) = re.findall(r"\A(?:--|#) (\S+\.\w+)\n", block.text)
            (self.folder / name).write_text(block.text)
        elif block.language == "sh" and block.rest == "background":
            self.background.append(
                subprocess.Popen(["/bin/sh", "-c", f"exec {block.text}"], cwd=self.folder, env=self.environment)
            )
        elif block.language == "sh":
            self.runs(block)
        elif block.language == "text":
            assert shows(block.text, self.said) == [], self.said
        else:
            assert block.language == "shell", block  # what a newcomer does once, by hand

    def runs(self, block: Block) -> None:
        ended = subprocess.run(
            ["/bin/sh", "-ec", block.text], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        self.said = ended.stdout
        assert ended.returncode == (block.rest == "fails"), f"{block.text}\n{ended.stdout}"

    def ends(self) -> list[int]:
        for process in self.background:
            process.send_signal(signal.SIGTERM)
        return [process.wait(SECONDS) for process in self.background]


@pytest.fixture
async def empty(cluster: Embedded | Given, maintenance: asyncpg.Connection) -> AsyncIterator[str]:
    """The address of a database with nothing in it."""
    name = f"guide_{uuid.uuid4().hex[:12]}"
    await maintenance.execute(f"create database {name}")
    yield cluster.dsn(name)
    await maintenance.execute(f"drop database {name} with (force)")


@pytest.fixture
def reader(tmp_path: Path, empty: str) -> Iterator[Reader]:
    made = Reader(tmp_path, empty)
    yield made
    for process in made.background:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.skipif(not os.access(find_prefix() / "bin" / "psql", os.X_OK), reason="these binaries have no psql")
async def test_word_by_word(reader: Reader, empty: str) -> None:
    for block in blocks():
        reader.does(block)
    connection = await asyncpg.connect(empty)
    try:
        await until(connection, "select count(*) = 2 from worker.jobs where status = 'completed'")
        assert await connection.fetchval("select cents from revenue") == 1700
        assert await connection.fetchval("select count(*) from receipt") == 2
        steps = await connection.fetch("select name, attempt from worker.job_step where job_id = 1 order by name")
        assert [tuple(step) for step in steps] == [("receipt", 1), ("revenue", 1)]
        assert reader.ends() == [0]
    finally:
        await connection.close()
