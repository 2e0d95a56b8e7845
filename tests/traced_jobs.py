"""Handlers that are traced."""

from worker import Context, Permanent, Request, traceparent


async def parent(context: Context) -> object:
    """Runs a step, makes a call, and enqueues a job that follows it."""
    await context.step("kept", "touch")
    await context.http(Request("GET", context.settings["url"]))
    context.enqueue("child")
    return {"traceparent": traceparent()}


async def child(context: Context) -> object:
    """Says what it was given."""
    return {"carried": context.job.traceparent}


async def broken(context: Context) -> None:
    """Fails with words that hold a row of a table."""
    raise Permanent("cannot be\nDETAIL: Key (word)=(canary-of-a-row) already exists")
