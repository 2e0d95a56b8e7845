"""One job type: everything that `[job.NAME]` may say, and what SQL is told of it."""

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from worker.config.fields import (
    Body,
    Duration,
    Function,
    HeaderName,
    HeaderValue,
    Identifier,
    Many,
    Name,
    Network,
    PayloadKey,
    PythonTarget,
    Section,
    SigningSecret,
    Span,
    Tag,
    Template,
    Url,
    default,
)
from worker.graph import Graph, Step
from worker.retry import Retry


class RetryKeys(Section):
    """When a failed attempt is tried again: exponential backoff with full jitter."""

    max_attempts: int = default(5, ge=1, le=10_000, description="Attempts in all, the first included.")
    first: Span = default("2s", description="The longest delay after the first failed attempt.")
    factor: float = default(2.0, ge=1, le=100, description="Growth of the longest delay from attempt to attempt.")
    max: Span = default("10m", description="The longest delay never grows beyond this.")

    def over(self, base: Retry) -> Retry:
        """`base` with the keys that were written here put over it."""
        return replace(base, **self.model_dump(exclude_unset=True))


class StepKeys(Section):
    """One SQL function of a graph."""

    sql: Function = Field(description="The function; resolved through `database.search_path` when not qualified.")
    tags: Many[Tag] = default((), description="What becomes stale; announced to the `then` jobs.")
    needs: Many[Name] = default((), description="Steps that must be done before.")
    timeout: Span | None = default(None, description="Statement timeout; without it the attempt's timeout alone.")
    optional: bool = default(False, description="A failure counts as done and does not fail the attempt.")


class StartRate(Section):
    """How many jobs of a type may start in a span of time; the others wait, first come, first served.

    A bucket of `limit` tokens that fills evenly, in `per`: after a quiet time as many may start at once, and in any
    span T no more than `limit` + `limit` * T / `per`.
    """

    limit: int = Field(ge=1, le=1_000_000, description="Starts allowed in `per`.")
    per: Span = Field(description="The span of time.")
    key: Template | None = default(
        None, description="One bucket for each value, such as `{user_id}`; else one for all."
    )


class Backlog(Section):
    """What happens to a new job when too many wait."""

    max: int = Field(
        ge=1, le=1_000_000, description="Most pending jobs of the type; each new one is counted against it."
    )
    then: Literal["delay", "refuse"] = default(
        "delay",
        description="`delay`: a new job is due later, by what the type's `rate` needs for `max` jobs, or by a minute. "
        "`refuse`: an error (WK011) for its producer; jobs that follow others are delayed all the same.",
    )
    per_tenant: int | None = default(
        None,
        ge=1,
        le=1_000_000,
        description='Most pending jobs of the type for one tenant; more are refused. Needs `then = "refuse"`.',
    )


class Coalesce(Section):
    """Rows of one key that are claimed together make one call."""

    key: Template = Field(description="Rows of one tenant with this key go together.")
    unite: Many[PayloadKey] = default((), description="Payload arrays that are united; all else is the oldest row's.")


class Partial(Section):
    """The answer that says: only a part was done."""

    status: int = default(207, ge=200, le=299, description="The HTTP status of such an answer.")
    failed: PayloadKey = Field(description="The key of the answer that lists what failed.")
    into: PayloadKey = Field(description="The payload array that the failed part goes back into.")


class JobType(Section):
    """A declared job type: a graph of SQL functions, a Python coroutine or an HTTP call."""

    steps: dict[Name, StepKeys] | None = default(None, description="The graph of SQL functions, by step name.")
    python: PythonTarget | None = default(None, description='The coroutine, as "module:function".')
    http: Url | None = default(None, description="The address that is called.")

    enabled: bool = default(True, description="Off: jobs stay pending, or go to `fallback`.")
    timeout: Span | None = default("5m", description="Of an attempt; its end is an error like others.")
    deadline: Span | None = default(None, description="Of the job from its first start, retries included; final.")
    expires: Span | None = default(None, description="A job not started by then is skipped.")
    retry_keys: RetryKeys = default({}, alias="retry", description="Put over `[retry]`.")
    priority: int = default(100, ge=0, le=1000, description="Smaller runs first.")
    limit: int | None = default(None, ge=1, le=10_000, description="Running at once, over all daemons.")
    rate: StartRate | None = default(None, description="Starts in a span of time; the others wait.")
    backlog: Backlog | None = default(None, description="A bound on pending jobs.")
    fair: bool = default(False, description="Tenants take turns, inside one priority; none is claimed ahead.")

    unique_key: Template | None = default(None, description="Two jobs of a tenant never hold the same key.")
    unique_while: Literal["waiting", "active"] = default(
        "waiting", description="`waiting`: until its first start; `active`: until its end."
    )
    on_conflict: Literal["keep", "refuse", "replace"] = default(
        "keep", description="When the unique key is held: keep the holder, refuse the new one, or replace the holder."
    )
    concurrency_key: Template | None = default(None, description="One job at a time for each value.")
    sources: dict[Name, bool] = default({}, description="A switch for each `source` of jobs.")
    producers: Many[Literal["app", "tenant"]] = default(
        ("app",), min_length=1, description="Who may enqueue: members of worker_enqueue, of worker_tenant."
    )

    arguments: dict[Identifier, PayloadKey] = default(
        {}, description="SQL argument = column or payload key; for `steps`."
    )
    parallel: int = default(2, ge=1, le=1000, description="Steps of one job at the same time.")
    settings: dict[str, Any] = default({}, repr=False, description="Handed to the coroutine as it is.")

    then: Many[Name] = default((), description="Jobs that follow, with the tags of the finished steps.")
    then_failed: Many[Name] = default((), description="Jobs that follow when this one gave up.")
    fallback: Url | None = default(None, description="Where jobs that are switched off are posted to.")
    audit: bool = default(False, description="Record every transition in `job_event`.")
    gauges: Many[PayloadKey] = default(
        (), description="Keys of the result whose numbers become `worker_job_result`, of the job that completed last."
    )
    log: Literal["summary", "each"] = default("summary", description="A line for each job, or one a second for all.")

    method: Literal["POST", "PUT", "PATCH", "DELETE", "GET"] = default("POST", description="Of the call.")
    headers: dict[HeaderName, HeaderValue] = default({}, description="Of the call.")
    body: Body | None = default(None, repr=False, description="JSON of the call; without it the payload.")
    secrets: Many[SigningSecret] = default((), description="Standard Webhooks secrets, newest first.")
    allow: Many[Network] = default((), description="Link-local and metadata networks that may be called.")
    retry_after_max: Duration = default("10m", description="Most that a Retry-After is honoured.")
    coalesce: Coalesce | None = default(None, description="Claimed rows of one key make one call.")
    partial: Partial | None = default(None, description="The answer that says: only a part was done.")

    _name: str = PrivateAttr("")
    _retry: Retry = PrivateAttr(Retry())

    def bind(self, name: str, retry: Retry) -> None:
        """Tell the type its name and the file's `[retry]`; done once, by the configuration that holds it."""
        self._name = name
        self._retry = self.retry_keys.over(retry)

    @property
    def name(self) -> str:
        return self._name

    @property
    def retry(self) -> Retry:
        """`[retry]` with this type's own keys over it."""
        return self._retry

    @property
    def kind(self) -> Literal["steps", "python", "http"]:
        """Which of the three says what to do."""
        return "steps" if self.steps is not None else "python" if self.python is not None else "http"

    @cached_property
    def graph(self) -> Graph | None:
        """The steps, ordered; None for other kinds.

        Raises:
            GraphError: the steps do not form a graph; never after `load`.
        """
        if self.steps is None:
            return None
        return Graph(Step(name, **dict(step)) for name, step in self.steps.items())

    def declaration(self) -> dict[str, Any]:
        """What SQL needs to know of this type: the argument of `worker.declare`, durations in seconds."""
        told = {
            **{key: getattr(self, key) for key in _DECLARED},
            "max_attempts": self.retry.max_attempts,
            "rate": self.rate.model_dump() if self.rate else None,
            "backlog": self.backlog.model_dump(exclude_none=True) if self.backlog else None,
            "producers": list(self.producers),
            "coalesce_key": self.coalesce.key if self.coalesce else None,
            "then": list(self.then),
            "then_failed": list(self.then_failed),
            "announces": ("tags" if self.graph and self.graph.tagged() else "result") if self.then else None,
            "fallback": self.fallback is not None,
        }
        canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return {**told, "digest": hashlib.sha256(canonical.encode()).hexdigest()}


_DECLARED = (
    "name", "priority", "unique_key", "unique_while", "on_conflict", "concurrency_key", "limit", "sources", "enabled",
    "expires", "deadline", "audit", "fair",
)  # fmt: skip
