"""Every error of the project, in one tree.

WorkerError
├── ConfigError            worker.toml or the environment is wrong; carries all faults at once
├── GraphError             the steps of one job type do not form a graph; carries all faults at once
├── DeclarationError       a declared SQL function or Python target is missing or has other arguments
├── SchemaError            the database's schema is too old, too new or edited after it was applied
├── SchemaBusy             another session keeps it from being changed; at migrations only
├── EmbeddedError          the private Postgres could not be started or stopped
├── DatabaseUnreachable    no connection within the time given
├── ProcessDead            this process was declared dead by another; it must come back under a new id
├── Stuck                  this process cannot heal itself; the watchdog ended it
├── Refusal                the database will not do what a person asked for; says why by its SQLSTATE
├── Unavailable            a person's question got no answer in time
└── JobError               one job ends, the daemon goes on
    ├── Permanent          said by an author: do not try again
    │   └── InvalidJob     the row itself is wrong (payload, placeholder, argument)
    ├── StepsFailed        some steps of a graph failed; names them
    ├── StepTimeout        a step ran past its statement timeout
    ├── AttemptTimeout     an attempt ran past the type's `timeout`
    ├── DeadlineExceeded   the job ran past its `deadline`; final
    ├── LeaseExpired       the process that ran the job died or fell silent
    ├── LostClaim          the claim is no longer current; nothing may be written
    ├── ChildDied          a child process ended in the midst of a call
    ├── NoPermit           a shared rate had no permit in time; the job is snoozed until one may be there
    ├── Later              the other side failed us and said how long to leave it alone
    ├── CancelRequested    a person or program asked for the end
    └── Interrupted        the daemon is stopping; the attempt is given back
"""

import math
from collections.abc import Iterable


class WorkerError(Exception):
    """Base of all errors that this project raises on purpose."""


class Faults(WorkerError):
    """Several faults found in one look; `faults` holds one line each."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


class ConfigError(Faults):
    """The configuration cannot be used; every fault names file, line, key and cure."""


class GraphError(Faults):
    """The steps do not form a graph: an unknown need, a cycle, nothing at all."""


class DeclarationError(Faults):
    """What worker.toml declares does not exist in the database or in Python as declared."""


class SchemaError(WorkerError):
    """The schema in the database does not fit this release."""


class SchemaBusy(WorkerError):
    """Another session keeps the schema from being changed."""


class EmbeddedError(WorkerError):
    """The private Postgres could not be found, started or stopped."""


class DatabaseUnreachable(WorkerError):
    """The database did not answer within the time given."""


class ProcessDead(WorkerError):
    """Another process declared this one dead; its id is never used again."""


class Stuck(WorkerError):
    """Nothing is claimed any more although the database answers: another process must take over."""


class Refusal(WorkerError):
    """The database answered a person's request with an error.

    Attributes:
        sqlstate: five characters; docs/sql.md lists those of this project's own class.
        detail, hint: as the database said them, None where it did not.
    """

    def __init__(self, sqlstate: str, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate, self.detail, self.hint = sqlstate, detail, hint


class Unavailable(WorkerError):
    """The database did not answer a person's request within the time that such a request may take."""


class JobError(WorkerError):
    """One job's trouble, never the daemon's."""


class Permanent(JobError):
    """Raised by an author: another attempt would fail in the same way."""


class InvalidJob(Permanent):
    """The row cannot be run as it is: undecodable payload, missing argument, unknown placeholder."""


class StepsFailed(JobError):
    """Steps of the graph failed; the message names each with its error."""


class StepTimeout(JobError):
    """The server stopped a step at its statement timeout."""


class AttemptTimeout(JobError):
    """The attempt reached the type's `timeout`; an error like others."""


class DeadlineExceeded(JobError):
    """The job reached its `deadline`, counted from its first start; final."""


class LeaseExpired(JobError):
    """The process that held the job died or fell silent."""


class LostClaim(JobError):
    """The claim is not current any more: somebody else owns the job now."""


class ChildDied(JobError):
    """The child process of `context.to_process` ended in the midst of the call, by itself or by a signal."""


class Later(JobError):
    """Failed; not to be tried again before `delay` seconds, nor before the type's own backoff.

    Args:
        delay: 0 for the backoff alone.
    """

    def __init__(self, message: str, delay: float = 0.0) -> None:
        if not isinstance(delay, int | float) or not math.isfinite(delay):
            raise TypeError(f"Later: delay must be a finite number of seconds, not {delay!r}")
        super().__init__(message)
        self.delay = delay


class NoPermit(JobError):
    """`context.permit` waited for as long as it may; the job comes again after `delay` seconds, uncounted."""

    def __init__(self, name: str, delay: float) -> None:
        super().__init__(f"no permit of {name} came free in time")
        self.delay = delay


class CancelRequested(JobError):
    """The job was cancelled while it ran."""


class Interrupted(JobError):
    """The daemon stops and hands the job back uncounted."""
