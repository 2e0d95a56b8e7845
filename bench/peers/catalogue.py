"""The queues that can be measured, as settings.toml says it."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One queue.

    Attributes:
        jobs: how many it is given to drain.
        settings: what its adapter gives to it, and what the figures name.
        install: what pip is asked for; the versions are those of requirements.txt.
        python: the least version of Python it runs on.
    """

    name: str
    adapter: str
    language: str
    jobs: int
    settings: dict[str, Any]
    title: str = ""
    package: str = ""
    install: list[str] = field(default_factory=list)
    python: str = "3.11"

    def open_jobs(self) -> str:
        """The SQL that counts its jobs that are not finished."""
        return (HERE / "sql" / f"{self.adapter}_open.sql").read_text()

    def any_open(self) -> str:
        """The same, or 0 or 1, found from the newest on: to count them in a full table burdens who is measured."""
        quick = HERE / "sql" / f"{self.adapter}_any.sql"
        return quick.read_text() if quick.exists() else self.open_jobs()


def catalogue(path: Path = HERE / "settings.toml") -> dict[str, Entry]:
    """Every queue by its name, ours and raw SQL among them."""
    return {name: Entry(name=name, **entry) for name, entry in tomllib.loads(path.read_text()).items()}


def peers() -> dict[str, Entry]:
    """Those of others."""
    return {name: entry for name, entry in catalogue().items() if entry.language != "own"}
