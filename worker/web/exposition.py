"""The text of a scrape, made at most once a second in each format however many scrape."""

import asyncio
import time

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

FRESH_SECONDS = 1.0
FORMATS = 8  # kept; who asks for stranger ones has them made each time

Encoded = tuple[float, "asyncio.Task[bytes]"]


class Exposition:
    """What a registry shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._made: dict[str, Encoded] = {}

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The text for this Accept header, and its content type."""
        encode, content = choose_encoder(accept)
        made = self._made.get(content)
        if made is None or time.monotonic() - made[0] > FRESH_SECONDS:
            # In a thread: a hundred steps make 2,600 lines and tens of milliseconds, in which no job would go on.
            made = time.monotonic(), asyncio.create_task(asyncio.to_thread(encode, self._registry))
            if content in self._made or len(self._made) < FORMATS:
                self._made[content] = made
        return await asyncio.shield(made[1]), content  # whoever goes away does not take it from the others
