"""The daemon of a demo: a real child process, `python -m worker run`, that never outlives the demo."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from worker.demo import leftovers
from worker.demo.failure import DemoFailed
from worker.embedded import child

STOP_SECONDS = 40.0  # the configured grace and a little
TOLD = 20  # lines of its log in an error

# What the demo changes in the shipped file, so that nobody waits.
_CHANGES = (
    (r'environment = "[^"]*"', 'environment = "demo"'),
    (r'(?m)^first = "[^"]*"', 'first = "200ms"'),
    (r'(?m)^(retry = \{.* first = )"1s"', r'\1"200ms"'),
)
# The webhook, which is shipped commented out; one that calls a fixed address is not the demo's to call.
_WEBHOOK = (
    r'(?m)^(?:# )?then = \["invalidate_cache"\].*\n',
    r'(?m)^(?:# )?\[job\.invalidate_cache\]\n(?:# )?http = "\$APP_URL/.*\n(?:(?:# )?\w+ = .*\n)*',
)


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
async def daemon(url: str, base: Path, variables: Mapping[str, str]) -> AsyncIterator[Daemon]:
    """A daemon on the database `url` and the file `base`, with quicker retries and the webhook switched on; it does not
    outlive the block.

    Args:
        variables: what the webhook needs, beside what is in the environment.
    """
    async with running(url, _changed_for_demo(base), variables) as started:
        yield started


@asynccontextmanager
async def running(url: str, text: str, variables: Mapping[str, str] | None = None) -> AsyncIterator[Daemon]:
    """A daemon on the database `url` and a worker.toml of this text; it does not outlive the block."""
    with leftovers.folder() as folder:
        config, log = folder / "worker.toml", folder / "daemon.log"
        _write(config, text)
        ours = {"DATABASE_URL": url, "DATABASE_URL_FILE": ""}
        started = Daemon(await _start(config, log, {**(variables or {}), **ours}), log)
        try:
            yield started
        finally:
            await asyncio.shield(started.kill())


def shipped() -> Path:
    """The worker.toml that comes with the project: in the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent.parent / "_worker.toml"
    return packaged if packaged.is_file() else packaged.parent.parent / "worker.toml"


def with_webhook(text: str) -> str:
    """The text of the shipped worker.toml with the cache webhook in force; DemoFailed for a text without it."""
    for pattern in _WEBHOOK:
        text = _changed(text, pattern, lambda found: re.sub("(?m)^# ", "", found[0]))
    return text


def _changed_for_demo(base: Path) -> str:
    text = with_webhook(base.read_text(encoding="utf-8"))
    for pattern, new in _CHANGES:
        text = _changed(text, pattern, new)
    return re.sub('(?m)^cron = ".*"', 'cron = "@yearly"', text)  # at two in the morning it is as at any other time


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _changed(text: str, pattern: str, new: str | Callable[[re.Match[str]], str]) -> str:
    text, found = re.subn(pattern, new, text, count=1)
    if not found:
        raise DemoFailed(f"the configuration has nothing like {pattern}, which the demo changes")
    return text


async def _start(config: Path, log: Path, variables: Mapping[str, str]) -> asyncio.subprocess.Process:
    environment = {**os.environ, **variables}
    environment.pop("PORT", None)
    safe_path = ["-P"] if sys.flags.safe_path else []
    # By way of the launcher of the private server: a demo that is killed takes its daemon along, and Ctrl-C in the
    # terminal reaches the demo only, which then stops the daemon.
    become = ["-I", "-S", child.__file__, str(log), "-1", "-1", str(os.getpid())]
    command = [sys.executable, *safe_path, "-m", "worker", "run", "--config", str(config)]
    return await asyncio.create_subprocess_exec(sys.executable, *become, *command, env=environment)
