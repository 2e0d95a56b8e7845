"""Where spans are made, seen from the parts: what each of them is wrapped in. Here in nothing, for nobody traces."""

from worker.breaker import Sender
from worker.handlers import Handler
from worker.step import Watch


class Traces:
    """Makes no spans, and costs nothing; `worker.otel` makes some."""

    def handlers(self, handlers: dict[str, Handler]) -> dict[str, Handler]:
        """Handlers by job type, each of whose attempts is a span."""
        return handlers

    def sender(self, sender: Sender) -> Sender:
        """A sender, each of whose calls is a span and carries it on."""
        return sender

    def watch(self, watch: Watch) -> Watch:
        """A watch on steps, each of which is a span."""
        return watch

    async def close(self) -> None:
        """Hand over what is still kept; at the end of the process."""
