"""Handlers that hold secrets in their hands when they fail."""

import asyncio
import os

from worker import Context, Permanent, secret


async def quoting(context: Context) -> None:
    """Says its secrets aloud: what its settings hold, and the address of the database."""
    raise Permanent(f"cannot log in with {context.settings['token']} at {os.environ['DATABASE_URL']}")


async def texting(context: Context) -> None:
    """Says the provider's secret aloud, which it took from where such secrets are."""
    raise Permanent(f"the provider refuses {secret('TWILIO_AUTH_TOKEN')}")


async def holding(context: Context) -> None:
    """Fails with everything in its locals and in the frames below."""
    payload, token = context.payload, context.settings["token"]
    raise RuntimeError("failed") from KeyError(len(str(payload)) + len(token))


async def lost(context: Context) -> None:
    """Leaves a task behind whose exception nobody fetches."""
    asyncio.get_running_loop().create_task(holding(context), name="stray")
    await asyncio.sleep(0)


async def slow(context: Context) -> None:
    """Runs past its timeout."""
    await asyncio.sleep(600 + len(context.payload))
