"""Spans of attempts, steps and calls, as OpenTelemetry's own SDK keeps them; and nothing at all without it."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.heart import becomes, configured, daemon, enqueue, row, until
from worker import breaker, service, traceparent
from worker.demo.receiver import Call, Receiver, Reply
from worker.otel import OpenTelemetry

REMOTE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE = 0x0AF7651916CD43DD8448EB211C80319C
JOBS = """
[job.graph]
then = ["told"]
[job.graph.steps]
one = {{ sql = "touch", tags = ["a"] }}
two = {{ sql = "fails", needs = ["one"], optional = true }}
[job.told]
http = "{url}/told?key=canary-of-the-query"
[job.parent]
python = "tests.traced_jobs:parent"
settings = {{ url = "{url}/parent?key=canary-of-the-query" }}
[job.child]
python = "tests.traced_jobs:child"
[job.broken]
python = "tests.traced_jobs:broken"
"""
FUNCTIONS = """
create function touch() returns void language sql as 'select';
create function fails() returns void language plpgsql as $$ begin raise exception 'no'; end $$;
"""


class Kept:
    """The spans that were made."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.spans = OpenTelemetry(self.provider.get_tracer("test"), self.provider)

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return found

    def below(self, parent: ReadableSpan) -> set[str]:
        spans = self.exporter.get_finished_spans()
        return {span.name for span in spans if span.parent and span.parent.span_id == parent.context.span_id}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    made = Kept()
    monkeypatch.setattr(service, "traces", lambda *_: made.spans)
    yield made
    made.provider.shutdown()


class Plain(Receiver):
    """Answers 200, or what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.told = Reply()

    def _answer(self, call: Call) -> Reply:
        return self.told


@pytest.fixture
async def receiver() -> AsyncIterator[Plain]:
    async with Plain() as serving:
        yield serving


def header(span: ReadableSpan) -> str:
    """The traceparent that whoever a span calls is given."""
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{int(span.context.trace_flags):02x}"


async def finish(connection, jobs: int) -> None:
    await until(connection, "select count(*) = $1 from worker.job_queue where finished_at is not null", jobs)


async def test_an_attempt_its_steps_and_what_follows_are_of_the_producers_trace(
    tmp_path, dsn, connection, kept, receiver
) -> None:
    await connection.execute(FUNCTIONS)
    async with daemon(configured(tmp_path, dsn, JOBS.format(url=receiver.url))):
        await connection.execute(f"set worker.traceparent = '{REMOTE}'")
        job = await enqueue(connection, "graph", correlation_id="c-1")
        await finish(connection, 2)
    attempt, told = kept.named("graph"), kept.named("told")
    assert (attempt.context.trace_id, attempt.parent.span_id, attempt.parent.is_remote) == (
        TRACE, 0xB7AD6B7169203331, True,
    )  # fmt: skip
    assert attempt.kind is SpanKind.CONSUMER
    assert (
        dict(attempt.attributes).items()
        >= {
            "messaging.system": "job_queue_worker",
            "messaging.operation.type": "process",
            "messaging.destination.name": "graph",
            "messaging.message.id": str(job),
            "messaging.message.conversation_id": "c-1",
            "worker.job.attempt": 1,
            "worker.job.outcome": "completed",
        }.items()
    )
    assert attempt.status.status_code is StatusCode.UNSET
    assert kept.below(attempt) == {"one", "two"}
    one, two = kept.named("one"), kept.named("two")
    assert attempt.start_time <= one.start_time <= one.end_time <= two.end_time <= attempt.end_time
    assert (two.status.status_code, two.attributes["error.type"]) == (StatusCode.ERROR, "StepError")
    assert told.context.trace_id == TRACE
    (post,) = [span for span in kept.exporter.get_finished_spans() if span.kind is SpanKind.CLIENT]
    assert (post.name, post.parent.span_id) == ("POST", told.context.span_id)
    assert post.attributes["http.response.status_code"] == 200
    assert [call.headers["traceparent"] for call in receiver.calls] == [header(post)]


async def test_a_handlers_calls_steps_and_follow_ups_are_below_its_own_span(
    tmp_path, dsn, connection, kept, receiver
) -> None:
    await connection.execute(FUNCTIONS)
    receiver.told = Reply(404)
    async with daemon(configured(tmp_path, dsn, JOBS.format(url=receiver.url))):
        parent = await enqueue(connection, "parent")
        await finish(connection, 2)
    attempt, child = kept.named("parent"), kept.named("child")
    assert attempt.parent is None
    assert kept.below(attempt) == {"kept", "GET", "child"}
    get = kept.named("GET")
    assert (get.status.status_code, get.attributes["error.type"]) == (StatusCode.ERROR, "404")
    assert json.loads((await row(connection, parent))["result"]) == {"traceparent": header(attempt)}
    assert child.parent.span_id == attempt.context.span_id
    result = await connection.fetchval("select result from worker.job_queue where job_type = 'child'")
    assert json.loads(result) == {"carried": header(attempt)}
    assert receiver.calls[0].headers["traceparent"] == header(get)


async def test_errors_show_in_spans_and_secrets_payloads_and_rows_do_not(
    tmp_path, dsn, connection, kept, receiver
) -> None:
    receiver.told = Reply(400, b"canary-of-an-answer")
    _, told, rest = JOBS.format(url=receiver.url).partition("[job.told]")
    async with daemon(configured(tmp_path, dsn, told + rest)):
        await enqueue(connection, "broken", {"word": "canary-of-the-payload"})
        told = await enqueue(connection, "told", {"word": "canary-of-the-payload"})
        await until(connection, "select errors is not null from worker.job_queue where id = $1", told)
        await until(connection, "select finished_at is not null from worker.job_queue where job_type = 'broken'")
    broken = kept.named("broken")
    assert (broken.attributes["error.type"], broken.status.description) == ("Permanent", "Permanent: cannot be")
    shown = "".join(span.to_json() for span in kept.exporter.get_finished_spans())
    assert "answered 400" in shown
    assert [word for word in ("canary", "told?", "DETAIL") if word in shown] == []


async def test_a_call_that_is_held_back_is_no_span(tmp_path, dsn, connection, kept, monkeypatch) -> None:
    monkeypatch.setattr(breaker, "FAILURES", 1)
    monkeypatch.setattr(breaker, "FAILING_SECONDS", 0.0)

    def kinds() -> list[SpanKind]:
        return sorted((span.kind for span in kept.exporter.get_finished_spans()), key=lambda kind: kind.name)

    dead = '[job.dead]\nhttp = "http://127.0.0.1:1/"\nretry = { max_attempts = 1 }'
    async with daemon(configured(tmp_path, dsn, dead)):
        await enqueue(connection, "dead")
        await finish(connection, 1)
        await enqueue(connection, "dead")
        await becomes(lambda: kinds().count(SpanKind.CONSUMER) == 2)
    assert kinds() == [SpanKind.CLIENT, SpanKind.CONSUMER, SpanKind.CONSUMER]


async def test_a_job_without_a_sound_traceparent_begins_a_trace(tmp_path, dsn, connection, kept, receiver) -> None:
    forged = ["00-" + "0" * 32 + "-b7ad6b7169203331-01", "ff" + REMOTE[2:], "x" * 200, "é\r\nX: y", REMOTE + "\n"]
    async with daemon(configured(tmp_path, dsn, '[job.child]\npython = "tests.traced_jobs:child"')):
        for each in forged:
            await connection.execute("insert into worker.job_queue (job_type, traceparent) values ('child', $1)", each)
        await finish(connection, len(forged))
    spans = kept.exporter.get_finished_spans()
    assert [span.parent for span in spans] == [None] * len(forged)
    assert len({span.context.trace_id for span in spans}) == len(forged)


async def test_without_spans_a_call_carries_the_trace_of_its_row(tmp_path, dsn, connection, receiver) -> None:
    jobs = (
        f'[job.told]\nhttp = "{receiver.url}"\n[job.own]\nhttp = "{receiver.url}"\nheaders = {{ Traceparent = "mine" }}'
    )
    async with daemon(configured(tmp_path, dsn, jobs)):
        for job_type, carried in (("told", REMOTE), ("told", "no\r\nX: y"), ("told", None), ("own", REMOTE)):
            await connection.execute(
                "insert into worker.job_queue (job_type, traceparent) values ($1, $2)", job_type, carried
            )
        await finish(connection, 4)
    assert sorted(call.headers.get("traceparent", "") for call in receiver.calls) == ["", "", REMOTE, "mine"]


def test_a_producers_span_gives_its_traceparent(kept) -> None:
    assert traceparent() is None
    with kept.provider.get_tracer("test").start_as_current_span("produce") as span:
        assert traceparent() == header(span)
