"""Running the command line, in this process and as a real one."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.heart import write_config
from tests.support import ROOT

KINDS = ("fine", "fails", "stumbles", "snoozes", "follows", "waits")
JOBS = "[retry]\nfirst = '300ms'\n" + "\n".join(f'[job.{kind}]\npython = "tests.cli.handlers:{kind}"' for kind in KINDS)
KEYED = "[job.keyed]\npython = 'tests.cli.handlers:fine'\nconcurrency_key = 'one'\n"
SECONDS = 60.0


class Answer(NamedTuple):
    """What a verb said."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """Standard output, which must be one JSON value and nothing else."""
        assert self.out, f"nothing on standard output, exit code {self.code}:\n{self.err}"
        return json.loads(self.out)


class Cli:
    """The command line on one configuration and one database."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.config = write_config(folder, f"{JOBS}\n{KEYED}")
        self.dsn = dsn

    async def __call__(self, *arguments: str, given: str | None = None) -> Answer:
        """A verb inside this process, in a thread of its own because a loop runs here already."""
        return await asyncio.to_thread(self._invoke, arguments, given)

    async def process(self, *arguments: str, **environment: str) -> Answer:
        """A verb as a process of its own, without a terminal."""
        return await asyncio.to_thread(self._run, arguments, environment)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """A verb as a process that goes on."""
        return subprocess.Popen(
            self._command(arguments), cwd=ROOT, env=self._environment(environment), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def _invoke(self, arguments: tuple[str, ...], given: str | None) -> Answer:
        from typer.testing import CliRunner

        from worker.cli.app import app

        result = CliRunner().invoke(
            app, [*arguments, "--config", str(self.config)], input=given, env={"DATABASE_URL": self.dsn}
        )
        return Answer(result.exit_code, result.stdout, result.stderr)

    def _run(self, arguments: tuple[str, ...], environment: dict[str, str]) -> Answer:
        ended = subprocess.run(
            self._command(arguments), cwd=ROOT, env=self._environment(environment), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        return Answer(ended.returncode, ended.stdout, ended.stderr)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "worker", *arguments, "--config", str(self.config)]

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {**os.environ, "DATABASE_URL": self.dsn, **more}
