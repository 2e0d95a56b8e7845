"""A real Prometheus with the shipped rules, whose every interval may be shortened."""

import asyncio
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from tests.deploy.plain import read_yaml
from tests.processes import die_with_parent
from tests.support import ROOT, free_port

RULES = ROOT / "deploy" / "alerts.yml"
SCRAPES = ROOT / "deploy" / "prometheus.yml"
DAEMONS, EXPORTER = "job-queue-worker", "job-queue-exporter"
SECONDS = {"s": 1, "m": 60, "h": 3600}
DEADLINE = 30.0
DIRECT = build_opener(ProxyHandler({}))

_SPAN = r"(\d+)([smh])\b"
# Where a span of time stands: of the whole file's intervals, a rule's patience, a window.
_PLACES = re.compile(rf"(?P<before>(?:interval|for): |\[){_SPAN}")


def scaled(text: str, by: int) -> str:
    """Rules or scrapes with every interval, patience and window divided."""
    return _PLACES.sub(
        lambda found: f"{found['before']}{int(found[2]) * SECONDS[found[3]] * 1000 // by}ms" if by > 1 else found[0],
        text,
    )


def scrapes(targets: Mapping[str, int]) -> str:
    """The shipped scrapes, of these jobs at these ports only; what stands there as a comment is taken too."""
    head, _, jobs = SCRAPES.read_text(encoding="utf-8").partition("scrape_configs:\n")
    blocks = re.split(r"(?m)^(?=  (?:# )?- job_name)", jobs)
    kept = []
    for block in blocks:
        bare = re.sub(r"(?m)^  # (?=[- ] )", "  ", block)
        named = re.search(r"- job_name: (\S+)", bare)
        if named and named[1] in targets:
            kept.append(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{targets[named[1]]}", bare))
    assert len(kept) == len(targets)
    return f"{head}scrape_configs:\n{''.join(kept)}"


class Prometheus:
    """A running one; what it answers is asked over its own API."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._process = process
        self._log = log

    async def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer; an error of the query is one of the test."""
        answer = json.loads(await self._get(f"/api/v1/{path}?{urlencode(parameters)}"))
        assert answer["status"] == "success", f"{path} {parameters}: {answer.get('error')}"
        return answer["data"]

    async def ready(self) -> None:
        """Wait until it serves."""
        end = time.monotonic() + DEADLINE
        while True:
            assert self._process.poll() is None, self._log.read_text(encoding="utf-8")
            assert time.monotonic() < end, self._log.read_text(encoding="utf-8")
            try:
                await self._get("/-/ready")
                return
            except OSError:
                await asyncio.sleep(0.05)

    async def _get(self, path: str) -> bytes:
        def get() -> bytes:
            try:
                with DIRECT.open(f"{self._url}{path}", timeout=DEADLINE) as answer:
                    return bytes(answer.read())
            except HTTPError as error:
                if error.code != 400:  # a faulty query, of which the body tells
                    raise
                return error.read()

        return await asyncio.to_thread(get)

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression as they are now."""
        found: list[dict[str, Any]] = (await self.ask("query", query=expression))["result"]
        return found

    async def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = (await self.ask("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def until(self, expression: str, seconds: float = DEADLINE) -> list[dict[str, Any]]:
        """Ask again and again until the expression has an answer."""
        end = time.monotonic() + seconds
        while not (found := await self.query(expression)):
            assert time.monotonic() < end, f"nothing after {seconds:g} s: {expression}"
            await asyncio.sleep(0.1)
        return found

    async def fires(self, alert: str, seconds: float) -> float:
        """Wait for an alert; answers how long it took."""
        began = time.monotonic()
        while alert not in await self.firing():
            assert time.monotonic() < began + seconds, f"{alert} does not fire within {seconds:g} s"
            await asyncio.sleep(min(0.1, seconds / 100))
        return time.monotonic() - began

    async def quiet(self, seconds: float) -> None:
        """Wait until nothing fires, as in the moments of a start."""
        end = time.monotonic() + seconds
        while firing := await self.firing():
            assert time.monotonic() < end, f"after {seconds:g} s there is still {firing}"
            await asyncio.sleep(0.1)


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, int], by: int = 1) -> Iterator[Prometheus]:
    """One with the shipped files that scrapes these jobs at these ports; it ends with the block."""
    folder.mkdir()
    (folder / "prometheus.yml").write_text(scaled(scrapes(targets), by), encoding="utf-8")
    (folder / "alerts.yml").write_text(scaled(RULES.read_text(encoding="utf-8"), by), encoding="utf-8")
    (folder / "worker.key").write_text("key\n", encoding="utf-8")
    port, log = free_port(), folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(shutil.which("prometheus")), f"--config.file={folder / 'prometheus.yml'}",
             f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl, nothing that takes a lock
        )  # fmt: skip
    try:
        yield Prometheus(port, process, log)
    finally:
        process.kill()
        process.wait(10)


def seconds(text: str, key: str) -> float:
    """The first span of time that stands after a key."""
    found = re.search(rf"\b{key}: {_SPAN}", text)
    assert found
    return int(found[1]) * SECONDS[found[2]]


def rules() -> list[dict[str, Any]]:
    """The shipped rules."""
    (group,) = read_yaml(RULES.read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found
