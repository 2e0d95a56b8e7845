"""Exporters as processes of their own, which sample often."""

import json
import sys
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.heart import becomes, write_config
from tests.processes import Daemon
from tests.support import free_port

FINISHED = "worker_jobs_finished_total"
JOBS = """
[job.echo]
python = "tests.sample_jobs:echo"
[job.call]
http = "$NOBODY_SETS_IT/x"
"""
HURRIED = """
import worker.exporter as exporter
from worker.cli.app import app
exporter.SAMPLE_EVERY, exporter.AGAIN_SECONDS = {every}, 0.2
app()
"""


class Running(Daemon):
    """An exporter that samples often, at a port."""

    def __init__(self, config: Path, dsn: str, log: Path, port: int, *options: str) -> None:
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False)
        super().__init__(config, dsn, log, options)

    def ask(self, path: str = "/metrics", **headers: str) -> httpx2.Response | None:
        """The answer, or None where nobody listens yet."""
        try:
            return self.client.get(path, headers=headers)
        except httpx2.TransportError:
            return None

    def scraped(self, **headers: str) -> dict[tuple[str, ...], float]:
        """Every sample: name and values of its labels → value."""
        answer = self.ask(**headers)
        return {} if answer is None or answer.status_code != 200 else samples(answer.text)

    async def shows(self, *wanted: Any, value: float = 1.0) -> dict[tuple[str, ...], float]:
        """Wait until a sample has this value."""
        await becomes(lambda: self.process.poll() is not None or self.scraped().get(wanted) == value, 40)
        assert self.process.poll() is None, self.said()
        return self.scraped()


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Exporters:
    """Starts them; none outlives the test."""

    def __init__(self, folder: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._dsn, self._monkeypatch = folder, dsn, monkeypatch
        self._begun: list[Running] = []

    def __call__(self, http: str = "", *options: str, address: str | None = None, every: float = 0.2) -> Running:
        """One more, at a port of its own unless `http` or the options say where."""
        script = HURRIED.format(every=every)
        self._monkeypatch.setattr(
            "tests.processes.command",
            lambda config: [sys.executable, "-c", script, "exporter", "--config", str(config)],
        )
        port = free_port()
        config = write_config(self._folder, http.format(port=port) + JOBS)
        listen = () if "listen" in http else ("--listen", f"127.0.0.1:{port}")
        log = self._folder / f"exporter-{len(self._begun)}.log"
        self._begun.append(Running(config, address or self._dsn, log, port, *listen, *options))
        return self._begun[-1]

    def end(self) -> None:
        for each in self._begun:
            each.kill()
            each.client.close()


async def add(connection: asyncpg.Connection, *counts: tuple[str, dict[str, str], float]) -> None:
    given = [{"series": series, "labels": labels, "value": value} for series, labels, value in counts]
    await connection.execute("select worker.add_counts($1::jsonb, '[]')", json.dumps(given))
