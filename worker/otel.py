"""Spans by OpenTelemetry: one for each attempt, and below it one for each step and each outgoing call.

Imported only where the environment asks for traces and the extra `otel` is installed. No payload, no address and no
answer gets into a span; an error does as the log has it.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import entry_points
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker.breaker import Sender
from worker.context import Context
from worker.handlers import Handler
from worker.job import Job
from worker.log import register_secrets, safe
from worker.outbound import Answer, Request
from worker.outcome import Completed, Failed, Outcome, Retried, message
from worker.report import without_payload, word
from worker.step import Watch
from worker.trace_context import traceparent, well_formed
from worker.traces import Traces

SYSTEM = "job_queue_worker"  # messaging.system
CLOSE_SECONDS = 5.0  # that a collector is given to take the last spans

_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_propagator = TraceContextTextMapPropagator()


class OpenTelemetry(Traces):
    """Makes spans with a tracer; `provider` is flushed at the end."""

    def __init__(self, tracer: Tracer, provider: TracerProvider | None = None) -> None:
        self._tracer = tracer
        self._provider = provider

    def handlers(self, handlers: dict[str, Handler]) -> dict[str, Handler]:
        return {name: self._traced(handler) for name, handler in handlers.items()}

    def sender(self, sender: Sender) -> Sender:
        return _TracedSender(self._tracer, sender)

    def watch(self, watch: Watch) -> Watch:
        return _TracedWatch(self._tracer, watch)

    async def close(self) -> None:
        if self._provider is None:
            return
        flushed = asyncio.Event()
        # The SDK heeds no timeout of a flush, and for a thread of the loop's own its end would wait, for minutes.
        Thread(target=_flush, args=(self._provider, asyncio.get_running_loop(), flushed), daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await flushed.wait()

    def _traced(self, handler: Handler) -> Handler:
        async def traced(context: Context) -> Any:
            with self._tracer.start_as_current_span(
                context.job.job_type,
                context=_parent(context.job),
                kind=SpanKind.CONSUMER,
                attributes=_attributes(context.jobs),
                links=[Link(other) for job in context.jobs[1:] if (other := _remote(job)).is_valid],
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    came = await handler(context)
                except BaseException as error:
                    _fail(span, error, call=False)
                    raise
                _end(span, came)
                return came

        return traced


class _TracedSender:
    def __init__(self, tracer: Tracer, sender: Sender) -> None:
        self._tracer = tracer
        self._sender = sender

    async def send(self, request: Request) -> Answer:
        with self._tracer.start_as_current_span(
            request.method, kind=SpanKind.CLIENT, attributes=_endpoint(request), record_exception=False,
            set_status_on_exception=False,
        ) as span:  # fmt: skip
            try:
                answer = await self._sender.send(_carrying(request))
            except BaseException as error:
                _fail(span, error, call=True)
                raise
            span.set_attribute("http.response.status_code", answer.status)
            if answer.status >= 400:
                span.set_attribute("error.type", str(answer.status))
                span.set_status(StatusCode.ERROR)
            return answer


class _TracedWatch(Watch):
    """Is told of a step when it is over, in the attempt's own context; so its span is made then, and dated back."""

    def __init__(self, tracer: Tracer, watch: Watch) -> None:
        self._tracer = tracer
        self._watch = watch

    def step(self, job: Job, step: str, seconds: float, error: BaseException | None) -> None:
        ended = time.time_ns()
        span = self._tracer.start_span(
            step,
            start_time=ended - int(seconds * 1e9),
            attributes={"db.system.name": "postgresql", "worker.step": step},
        )
        if error is not None:
            _fail(span, error, call=False)
        span.end(ended)
        self._watch.step(job, step, seconds, error)

    def database_error(self, error: BaseException) -> None:
        self._watch.database_error(error)


def configured(environ: Mapping[str, str], environment: str, version: str) -> OpenTelemetry:
    """By the provider that somebody set for this process, else by one made of the standard OTEL_ variables.

    Args:
        environment: of the configuration; `version`: of this release.

    Raises:
        LookupError: no exporter of the wanted name is installed.
    """
    given = trace.get_tracer_provider()
    if isinstance(given, TracerProvider):
        return OpenTelemetry(given.get_tracer("worker", version), given)
    for variable in _HEADERS:
        register_secrets(pair.partition("=")[2].strip() for pair in environ.get(variable, "").split(","))
    resource = _resource(environ, environment, version)
    # Flushed by `close`; at the exit of the process it would wait for a collector once more, for half a minute.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in _exporters(environ):
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return OpenTelemetry(provider.get_tracer("worker", version), provider)


def _flush(provider: TracerProvider, loop: asyncio.AbstractEventLoop, flushed: asyncio.Event) -> None:
    try:
        provider.force_flush()
    finally:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(flushed.set)


def _resource(environ: Mapping[str, str], environment: str, version: str) -> Resource:
    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    ours = {"service.version": version, "deployment.environment.name": environment}
    return Resource.create(ours if named else {"service.name": "job-queue-worker", **ours})


def _exporters(environ: Mapping[str, str]) -> list[SpanExporter]:
    made = []
    for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        wanted = _otlp(environ) if name.strip() == "otlp" else name.strip()
        found = list(entry_points(group="opentelemetry_traces_exporter", name=wanted))
        if not found:
            raise LookupError(f"no exporter {wanted} is installed")
        made.append(found[0].load()())
    return made


def _otlp(environ: Mapping[str, str]) -> str:
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    return "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"


def _parent(job: Job) -> TraceContext:
    carried = {"traceparent": job.traceparent} if job.traceparent and well_formed(job.traceparent) else {}
    return _propagator.extract(carried, TraceContext())


def _remote(job: Job) -> trace.SpanContext:
    return trace.get_current_span(_parent(job)).get_span_context()


def _attributes(jobs: Sequence[Job]) -> dict[str, str | int | float]:
    job = jobs[0]
    known: dict[str, str | int | float] = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.destination.name": job.job_type,
        "messaging.message.id": str(job.id),
        "messaging.message.conversation_id": job.correlation_id,
        "worker.job.attempt": job.attempt,
        "worker.job.max_attempts": job.max_attempts,
        "worker.job.waited": round(max(job.waited, 0.0), 6),
    }
    return known if len(jobs) == 1 else {**known, "messaging.batch.message_count": len(jobs)}


def _endpoint(request: Request) -> dict[str, str | int]:
    """Of the address only where it leads: the path and what follows may be secret."""
    known: dict[str, str | int] = {"http.request.method": request.method}
    with suppress(ValueError):
        parts = urlsplit(request.url)
        known |= {"url.scheme": parts.scheme, "server.address": parts.hostname or ""}
        known["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)
    return known


def _carrying(request: Request) -> Request:
    kept = {name: value for name, value in request.headers.items() if name.lower() != "traceparent"}
    return replace(request, headers=kept | {"traceparent": current}) if (current := traceparent()) else request


def _end(span: Span, came: Any) -> None:
    outcome = came[0] if isinstance(came, list) and came and isinstance(came[0], Outcome) else came
    span.set_attribute("worker.job.outcome", word(type(outcome) if isinstance(outcome, Outcome) else Completed))
    if isinstance(outcome, Failed | Retried):
        _say(span, "", outcome.error, call=True)


def _fail(span: Span, error: BaseException, call: bool) -> None:
    _say(span, type(error).__name__, message(error), call)


def _say(span: Span, kind: str, said: str, call: bool) -> None:
    span.set_attribute("error.type", kind or said.partition(":")[0])
    span.set_status(StatusCode.ERROR, safe(without_payload(said, call)))
