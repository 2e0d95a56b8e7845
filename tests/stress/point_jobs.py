"""Coroutines for the sweep of points."""

from pathlib import Path

from tests.stress.jobs import RUNS, note
from worker import Context


async def follow(context: Context) -> None:
    """What follows; it has nothing to do."""


async def reports(context: Context) -> None:
    """Says how far it is, then has its effect."""
    await context.progress("halfway", done=1)
    note(Path(context.settings["folder"]) / RUNS, f"{context.job.id} {context.job.claim}")
