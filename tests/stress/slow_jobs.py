"""A coroutine whose first execution outlasts every lease of an experiment: a second one would overlap with it."""

import asyncio
from pathlib import Path

from tests.stress.jobs import OVERLAPS, RUNS, held, note
from worker import Context

SLOW_JOBS = """
[job.slow]
python = "tests.stress.slow_jobs:slow_at_first"
settings = { folder = "{folder}" }
retry = { first = "10ms", max = "100ms", max_attempts = 100 }
"""


async def slow_at_first(context: Context) -> object:
    """Takes `seconds` the first time, and a moment whenever it comes again."""
    folder = Path(context.settings["folder"])
    begun = folder / f"begun-{context.job.id}"
    with held(folder / f"job-{context.job.id}", folder / OVERLAPS, context):
        first = not begun.exists()
        begun.touch()
        await asyncio.sleep(context.payload["seconds"] if first else 0.02)
        note(folder / RUNS, f"{context.job.id} {context.job.claim}")
    return {"claim": context.job.claim}
