"""The one error of the demos."""

from worker.errors import WorkerError


class DemoFailed(WorkerError):
    """Something that the demo promises did not happen; the message says what, and what was seen instead."""
