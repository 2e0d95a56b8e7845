"""The door: what the author of a job imports.

    from worker import Context, Permanent, Snoozed

    async def reminder(context: Context) -> object: ...

Names are imported when they are first used, so that `worker --help` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.addresses import OutboundError, RefusedAddress
    from worker.breaker import Held
    from worker.context import Context
    from worker.credentials import secret
    from worker.errors import ChildDied, InvalidJob, Later, LostClaim, Permanent, WorkerError
    from worker.job import Job, Status
    from worker.outbound import Answer, NoConnection, Request, TooLarge, TooSlow, Unreachable
    from worker.outcome import Cancelled, Completed, Outcome, Skipped, Snoozed
    from worker.retry import Retry
    from worker.trace_context import traceparent

_HOME = {
    "Answer": "worker.outbound",
    "Cancelled": "worker.outcome",
    "ChildDied": "worker.errors",
    "Completed": "worker.outcome",
    "Context": "worker.context",
    "Held": "worker.breaker",
    "InvalidJob": "worker.errors",
    "Job": "worker.job",
    "Later": "worker.errors",
    "LostClaim": "worker.errors",
    "NoConnection": "worker.outbound",
    "OutboundError": "worker.addresses",
    "Outcome": "worker.outcome",
    "Permanent": "worker.errors",
    "RefusedAddress": "worker.addresses",
    "Request": "worker.outbound",
    "Retry": "worker.retry",
    "Skipped": "worker.outcome",
    "Snoozed": "worker.outcome",
    "Status": "worker.job",
    "TooLarge": "worker.outbound",
    "TooSlow": "worker.outbound",
    "Unreachable": "worker.outbound",
    "WorkerError": "worker.errors",
    "secret": "worker.credentials",
    "traceparent": "worker.trace_context",
}

__all__ = [
    "Answer",
    "Cancelled",
    "ChildDied",
    "Completed",
    "Context",
    "Held",
    "InvalidJob",
    "Job",
    "Later",
    "LostClaim",
    "NoConnection",
    "OutboundError",
    "Outcome",
    "Permanent",
    "RefusedAddress",
    "Request",
    "Retry",
    "Skipped",
    "Snoozed",
    "Status",
    "TooLarge",
    "TooSlow",
    "Unreachable",
    "WorkerError",
    "secret",
    "traceparent",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
