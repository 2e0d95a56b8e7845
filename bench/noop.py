"""The handlers that are measured: they do nothing, or wait."""

import asyncio

from worker import Context


async def noop(context: Context) -> None:
    """Nothing at all."""


async def wait_5ms(context: Context) -> None:
    """What a short call of something outside costs."""
    await asyncio.sleep(0.005)
