"""`worker VERB …` as a person would call it: a process of its own, which does not outlive the demo."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from worker.demo.failure import DemoFailed

SECONDS = 60.0


class Said(NamedTuple):
    """How a verb ended."""

    code: int
    out: str
    err: str


class Verbs:
    """Verbs on one configuration and one database; `more` is put into their environment."""

    def __init__(self, config: Path, url: str, more: Mapping[str, str] | None = None) -> None:
        self._config = config
        self._environment = {**os.environ, **(more or {}), "DATABASE_URL": url, "DATABASE_URL_FILE": ""}
        self._environment.pop("PORT", None)

    async def __call__(self, *arguments: str) -> Said:
        """A verb, awaited."""
        async with self.started(*arguments) as process:
            try:
                async with asyncio.timeout(SECONDS):
                    out, err = await process.communicate()
            except TimeoutError:
                raise DemoFailed(f"worker {' '.join(arguments)} did not end within {SECONDS:g} s") from None
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def started(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A verb at work; killed where it still is when the block ends."""
        safe_path = ["-P"] if sys.flags.safe_path else []
        process = await asyncio.create_subprocess_exec(
            sys.executable, *safe_path, "-m", "worker", *arguments, "--config", str(self._config),
            env=self._environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
