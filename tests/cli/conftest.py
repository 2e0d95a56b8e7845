"""The command line, with a database and a configuration of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.cli.exporters import Exporters
from tests.cli.support import Cli


@pytest.fixture
def cli(tmp_path: Path, dsn: str) -> Iterator[Cli]:
    yield Cli(tmp_path, dsn)
    structlog.reset_defaults()  # verbs run in this process configure the log


@pytest.fixture
def exporters(tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exporters]:
    """Starts exporters, which end with the test."""
    started = Exporters(tmp_path, dsn, monkeypatch)
    yield started
    started.end()
