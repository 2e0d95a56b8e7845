"""The door: what the author of a job imports.

    from worker import Context, Permanent, Snoozed

    async def reminder(context: Context) -> object: ...

Names are imported when they are first used, so that `worker --help` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.context import Context
    from worker.errors import InvalidJob, LostClaim, Permanent, WorkerError
    from worker.job import Job, Status
    from worker.outcome import Cancelled, Completed, Outcome, Skipped, Snoozed
    from worker.retry import Retry

_HOME = {
    "Cancelled": "worker.outcome",
    "Completed": "worker.outcome",
    "Context": "worker.context",
    "InvalidJob": "worker.errors",
    "Job": "worker.job",
    "LostClaim": "worker.errors",
    "Outcome": "worker.outcome",
    "Permanent": "worker.errors",
    "Retry": "worker.retry",
    "Skipped": "worker.outcome",
    "Snoozed": "worker.outcome",
    "Status": "worker.job",
    "WorkerError": "worker.errors",
}

__all__ = [
    "Cancelled",
    "Completed",
    "Context",
    "InvalidJob",
    "Job",
    "LostClaim",
    "Outcome",
    "Permanent",
    "Retry",
    "Skipped",
    "Snoozed",
    "Status",
    "WorkerError",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
