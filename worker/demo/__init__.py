"""The demos: shipped systems at work on a database of their own."""

from pathlib import Path
from typing import Any

DEMOS = ("stats", "reconcile", "auto-sync", "sync", "games")


def play(name: str, *, quiet: bool, config: Path | None = None) -> dict[str, Any]:
    """Play a demo to its end; answers with what `--json` prints.

    Args:
        quiet: keep standard output for the caller, and tell the story on standard error.
        config: for stats, a worker.toml to start from; else the one that comes with the project.

    Raises:
        DemoFailed: something that should have happened did not.
    """
    import asyncio
    from importlib import import_module

    from worker.demo import daemon, stats
    from worker.demo.teller import Teller

    assert name in DEMOS
    teller = Teller(quiet=quiet)
    if name == "stats":
        return asyncio.run(stats.play(teller, config or daemon.shipped()))
    told: dict[str, Any] = asyncio.run(import_module(f"worker.demo.{name.replace('-', '_')}").play(teller))
    return told
