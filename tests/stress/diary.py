"""When a daemon said what, by its own log."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tests.processes import Daemon


def moments(daemon: Daemon, event: str) -> list[float]:
    """When it said this, in seconds of the clock on the wall."""
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in said(daemon, event)]


def said(daemon: Daemon, event: str) -> Iterator[dict[str, Any]]:
    """Its lines with this event."""
    for line in daemon.said().splitlines():
        if f'"event":"{event}"' in line and line.endswith("}"):
            yield json.loads(line)
