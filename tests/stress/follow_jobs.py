"""Coroutines that have successors: each is to leave exactly one, whatever is lost on the way."""

from pathlib import Path

from tests.stress.jobs import RUNS, note
from worker import Context


async def parent(context: Context) -> object:
    """Enqueues one child, which counts when this attempt's verdict does."""
    context.enqueue("child", {"of": context.job.id})
    return await ran(context)


async def silent(context: Context) -> None:
    """Says that it ran, and has no result."""
    await ran(context)


async def ran(context: Context) -> object:
    """Says that it ran."""
    note(Path(context.settings["folder"]) / RUNS, f"{context.job.id} {context.job.claim}")
    return {"claim": context.job.claim}
