"""An HTTP job: a call made of one payload, or of those of several rows that coalesce, and what its answer means.

`webhook-id` is `msg_<id>` of the oldest job. Where a call may be made anew with other content, because rows coalesce or
a partial answer shrank a payload, a digest of the body follows: a receiver that drops what it has seen must neither
take another content for the same call, nor the same for another.
"""

import hashlib
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import orjson

from worker import exact
from worker.breaker import Held, Sender
from worker.config import JobType, placeholders
from worker.context import Context
from worker.errors import InvalidJob, JobError, Later, Permanent
from worker.job import Job
from worker.outbound import Answer, Request
from worker.outcome import Completed, Outcome, Retried, Snoozed, clean, judge
from worker.trace_context import well_formed

SECONDS = 15.0  # of a call, where the type names no timeout
PARENTS = "parents"  # the payload key of a united call that holds the ids of its jobs
SHOWN = 200  # characters of an answer in an error

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")
_GONE = 410


class BadAnswer(Later):
    """The receiver answered, but not with success."""


class PartlyFailed(Later):
    """The receiver did some of it; the rest goes again."""


def build(job_type: JobType, outbound: Sender) -> Callable[[Context], Awaitable[list[Outcome]]]:
    """The handler of an HTTP job; it answers with an outcome for each of `context.jobs`, in their order."""
    assert job_type.http is not None
    timeout = job_type.timeout if "timeout" in job_type.model_fields_set else None
    return _Endpoint(job_type, outbound, job_type.http, timeout or SECONDS)


def build_fallback(job_type: JobType, outbound: Sender) -> Callable[[Context], Awaitable[list[Outcome]]]:
    """The handler of jobs that are switched off: each payload is posted, as it is, to the type's `fallback`."""
    assert job_type.fallback is not None
    plain = job_type.model_copy(update={"method": "POST", "body": None, "coalesce": None, "partial": None})
    plain.bind(job_type.name, job_type.retry)
    return _Endpoint(plain, outbound, job_type.fallback, SECONDS)


def unite(jobs: Sequence[Job], keys: Iterable[str]) -> dict[str, Any]:
    """One payload of several jobs, the oldest first: its own, with the arrays under `keys` united, each value once, and
    the ids of all under `parents`."""
    united = {**jobs[0].payload}
    for key in keys:
        if arrays := [job.payload[key] for job in jobs if key in job.payload]:
            united[key] = list({_same(value): value for array in arrays for value in array}.values())
    return {**united, PARENTS: [job.id for job in jobs]}


@dataclass
class _Endpoint:
    """Jobs → one call → an outcome for each."""

    job_type: JobType
    outbound: Sender
    url: str
    timeout: float

    def __post_init__(self) -> None:
        said = self.job_type
        self._headers = {name: value.get_secret_value() for name, value in said.headers.items()}
        self._secrets = [secret.get_secret_value() for secret in said.secrets]
        self._allow = tuple(ipaddress.ip_network(network) for network in said.allow)
        self._unite = said.coalesce.unite if said.coalesce else ()
        self._arrays = {*self._unite, *((said.partial.into,) if said.partial else ())}
        self._hidden = _hidden(self._headers.values(), self._secrets, self.url)

    async def __call__(self, context: Context) -> list[Outcome]:
        faults = {job.id: self._fault(job) for job in context.jobs}
        sound = [job for job in context.jobs if faults[job.id] is None]
        outcomes = {job.id: self._judge(job, fault) for job in context.jobs if (fault := faults[job.id])}
        if sound:
            outcomes |= zip((job.id for job in sound), await self._call(sound), strict=True)
        return [outcomes[job.id] for job in context.jobs]

    async def _call(self, jobs: Sequence[Job]) -> list[Outcome]:
        try:
            answer = await self.outbound.send(self.request(jobs))
            return self._read(jobs, answer)
        except Held as held:
            return [Snoozed(held.delay, keep_steps=True)] * len(jobs)  # a fallback's job may have finished steps
        except JobError as error:
            return [self._judge(job, error) for job in jobs]

    def request(self, jobs: Sequence[Job]) -> Request:
        """The call that these jobs make, the oldest first."""
        body = self._body(jobs)
        varies = self.job_type.coalesce is not None or self.job_type.partial is not None
        digest = f"_{hashlib.sha256(body).hexdigest()[:16]}" if varies else ""
        return Request(
            method=self.job_type.method,
            url=self.url,
            headers=self._traced(jobs[0].traceparent),
            body=b"" if self.job_type.method == "GET" else body,
            secrets=self._secrets,
            webhook_id=f"msg_{jobs[0].id}{digest}",
            timeout=self.timeout,
            allow=self._allow,
        )

    def _traced(self, traceparent: str | None) -> Mapping[str, str]:
        """The headers, with the trace that the oldest job is part of."""
        if traceparent is None or not well_formed(traceparent):
            return self._headers
        return {"traceparent": traceparent} | self._headers  # the configuration's own wins

    def _body(self, jobs: Sequence[Job]) -> bytes:
        lead, template = jobs[0], self.job_type.body
        if template is None and self.job_type.coalesce is None:
            return lead.text.encode()  # as the row has it: no number is read and written anew
        payload = unite(jobs, self._unite) if self.job_type.coalesce else lead.payload
        if template is not None:
            payload = placeholders.fill(template, lead.columns(), payload if isinstance(payload, dict) else {})
        return _encoded(payload)

    def _fault(self, job: Job) -> InvalidJob | None:
        """What makes this row unfit for any call; the others of its group then go without it."""
        try:
            if self._arrays:
                self._check(job.payload)
            self._body([job])
        except InvalidJob as error:
            return error
        return None

    def _check(self, payload: Any) -> None:
        if not isinstance(payload, dict):
            raise InvalidJob("the payload must be an object")
        for key in self._arrays:
            if not isinstance(payload.get(key, []), list):
                raise InvalidJob(f"the payload's {key!r} must be an array")
        _encoded(payload)  # its values are compared by their encoding

    def _judge(self, job: Job, error: JobError) -> Outcome:
        return judge(job, self.job_type.retry, error)

    def _read(self, jobs: Sequence[Job], answer: Answer) -> list[Outcome]:
        partial = self.job_type.partial
        if partial and answer.status == partial.status:
            return self._partly(jobs, answer, partial.failed, partial.into)
        if 200 <= answer.status < 300:
            return [Completed({"status": answer.status}) for _ in jobs]
        if answer.status == _GONE:
            raise Permanent(self._said(answer))
        raise BadAnswer(self._said(answer), self._wait(answer))

    def _partly(self, jobs: Sequence[Job], answer: Answer, key: str, into: str) -> list[Outcome]:
        failed = self._failed(answer, key)
        owned = [{_same(value) for value in job.payload.get(into, [])} for job in jobs]
        if unknown := failed - set().union(*owned):
            # Nobody's: which of ours is meant cannot be known, so nothing counts as done.
            raise BadAnswer(f"answered {answer.status}; {len(unknown)} values of {key!r} were not sent")
        return [self._left(job, answer, into, own & failed) for job, own in zip(jobs, owned, strict=True)]

    def _failed(self, answer: Answer, key: str) -> set[bytes]:
        try:
            return {_same(value) for value in _listed(answer.json(), key)}
        except (ValueError, TypeError):
            raise BadAnswer(f"{self._said(answer)} (without an array {key!r})", self._wait(answer)) from None

    def _left(self, job: Job, answer: Answer, into: str, failed: set[bytes]) -> Outcome:
        if not failed:
            return Completed({"status": answer.status})
        values = job.payload[into]
        left = [value for value in values if _same(value) in failed]
        error = PartlyFailed(f"answered {answer.status}; {len(left)} of {len(values)} {into} left", self._wait(answer))
        outcome = self._judge(job, error)
        return replace(outcome, payload={**job.payload, into: left}) if isinstance(outcome, Retried) else outcome

    def _wait(self, answer: Answer) -> float:
        return min(answer.retry_after or 0.0, self.job_type.retry_after_max)

    def _said(self, answer: Answer) -> str:
        """Status and beginning of an answer, without what must not be seen: a receiver may echo our own headers."""
        text = answer.body.decode("utf-8", "replace")
        for hidden in self._hidden:
            text = text.replace(hidden, "***")
        text = clean(_CONTROL.sub(" ", text)).strip()[:SHOWN]
        return f"answered {answer.status}: {text}" if text else f"answered {answer.status}"


def _hidden(headers: Iterable[str], secrets: Iterable[str], url: str) -> list[str]:
    words = {*headers, *(value.rpartition(" ")[2] for value in headers), *secrets, urlsplit(url).query}
    return sorted((word for word in words if len(word) >= 6), key=len, reverse=True)


def _listed(value: Any, key: str) -> list[Any]:
    if isinstance(value, dict) and isinstance(value.get(key), list):
        return list(value[key])
    raise ValueError(key)


def _encoded(payload: Any) -> bytes:
    try:
        return exact.dumps(payload, default=str)
    except (TypeError, RecursionError) as error:
        raise InvalidJob(f"the payload cannot be sent as JSON: {error}") from None


def _same(value: Any) -> bytes:
    """Equal for equal JSON values; Python's own == takes 1 for true."""
    return exact.dumps(value, option=orjson.OPT_SORT_KEYS)
