"""The daemon of a demo: a real child process, `python -m worker run`, that never outlives the demo."""

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from worker.demo import leftovers
from worker.demo.failure import DemoFailed
from worker.embedded import child

STOP_SECONDS = 40.0  # the configured grace and a little
TOLD = 20  # lines of its log in an error

# What the demo changes in the shipped file, so that nobody waits.
_CHANGES = ((r'environment = "[^"]*"', 'environment = "demo"'), (r'(?m)^first = "[^"]*"', 'first = "200ms"'))


class Daemon:
    """A running child."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def ended(self) -> int | None:
        """Its exit code, once it has one."""
        return self._process.returncode

    def said(self) -> str:
        """The last lines of its log."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-TOLD:]) or "it said nothing"

    async def stop(self) -> int:
        """SIGTERM; answers with the exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            raise DemoFailed(f"the daemon did not stop within {STOP_SECONDS:g} s\n{self.said()}") from None

    async def kill(self) -> None:
        """End it whatever it does; nothing when it has ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def daemon(url: str, base: Path) -> AsyncIterator[Daemon]:
    """A daemon on the database `url` and the file `base`, with quicker retries; it does not outlive the block."""
    for left in leftovers.of_the_dead(Path(tempfile.gettempdir())):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=leftovers.mine()) as folder:
        config, log = Path(folder, "worker.toml"), Path(folder, "daemon.log")
        _configure(base, config)
        started = Daemon(await _start(config, log, url), log)
        try:
            yield started
        finally:
            await asyncio.shield(started.kill())


def shipped() -> Path:
    """The worker.toml that comes with the project: in the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent.parent / "_worker.toml"
    return packaged if packaged.is_file() else packaged.parent.parent / "worker.toml"


def _configure(base: Path, path: Path) -> None:
    text = base.read_text(encoding="utf-8")
    for pattern, changed in _CHANGES:
        text, found = re.subn(pattern, changed, text, count=1)
        if not found:
            raise DemoFailed(f"{base} has nothing like {pattern}, which the demo changes")
    path.write_text(text, encoding="utf-8")


async def _start(config: Path, log: Path, url: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "DATABASE_URL": url}
    environment.pop("PORT", None)
    safe_path = ["-P"] if sys.flags.safe_path else []
    # By way of the launcher of the private server: a demo that is killed takes its daemon along, and Ctrl-C in the
    # terminal reaches the demo only, which then stops the daemon.
    become = ["-I", "-S", child.__file__, str(log), "-1", "-1", str(os.getpid())]
    command = [sys.executable, *safe_path, "-m", "worker", "run", "--config", str(config)]
    return await asyncio.create_subprocess_exec(sys.executable, *become, *command, env=environment)
