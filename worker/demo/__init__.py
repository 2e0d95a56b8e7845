"""The demos: shipped systems at work on a database of their own."""

from typing import Any

DEMOS = ("stats",)


def play(name: str, *, quiet: bool) -> dict[str, Any]:
    """Play a demo to its end; answers with what `--json` prints.

    Args:
        quiet: keep standard output for the caller, and tell the story on standard error.

    Raises:
        DemoFailed: something that should have happened did not.
    """
    import asyncio

    from worker.demo import stats
    from worker.demo.teller import Teller

    assert name in DEMOS
    return asyncio.run(stats.play(Teller(quiet=quiet)))
