"""The W3C trace context that a job carries in its column `traceparent`."""

import re
import sys

_SHAPE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def well_formed(text: str | None) -> bool:
    """Whether this is a traceparent that others would take; a producer may have written anything into the column."""
    return text is not None and _SHAPE.fullmatch(text) is not None


def traceparent() -> str | None:
    """That of the current span, for the setting `worker.traceparent` of whoever enqueues; None where nobody traces."""
    trace = sys.modules.get("opentelemetry.trace")  # who has a span has imported it; nobody else need pay for it
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}" if span.is_valid else None
