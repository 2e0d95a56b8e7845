"""Whatever is logged: one line, readable, without secrets."""

import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker import log
from worker.job import Job

HOSTILE = "\x00\x1b[31mred\x9b2J\u202eabc\u2028\ud800\x7f\r"

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner),
    max_leaves=10,
)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    secrets, pattern = set(log._secrets), log._any_secret
    yield
    structlog.reset_defaults()
    log._secrets, log._any_secret = secrets, pattern
    root.handlers[:], root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def written(capsys: pytest.CaptureFixture[str], event: str = "event", **values: Any) -> dict[str, Any]:
    """The one JSON line that came of one call."""
    log.configure(json=True, level="debug")
    structlog.get_logger().info(event, **values)
    [line] = lines(capsys)
    return line


def test_event_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(written(capsys, "job.finished", job_id=1, a=2)) == ["event", "level", "timestamp", "job_id", "a"]


def test_job_fields() -> None:
    job = Job(
        id=7, job_type="stats_update", text="{}", priority=100, attempt=2, max_attempts=5, claim=9, tenant_id=None,
        correlation_id="c", traceparent=None, source=None, parent_id=None, concurrency_key=None, rescues=0, snoozes=0,
        waited=0.1, remaining=None,
    )  # fmt: skip
    assert log.job_fields(job) == {"job_id": 7, "job_type": "stats_update", "attempt": 2, "correlation_id": "c"}


class Unshowable:
    def __repr__(self) -> NoReturn:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (HOSTILE, "\\x00\\x1b[31mred\\x9b2J\\u202eabc\\u2028\\ud800\\x7f\\x0d"),
        ("two\nlines\tand ä", "two\nlines\tand ä"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (1 << 80, str(1 << 80)),
        (True, True),
        (None, None),
        ((1, "a"), [1, "a"]),
        ({1: {2}}, {"1": [2]}),
        (b"\xff", "b'\\xff'"),
        (ValueError("x"), "x"),
        (Unshowable(), "<Unshowable that cannot be shown>"),
        ([[[[[[[[[1]]]]]]]]], [[[[[[[["[1]"]]]]]]]]),
        (list(range(101)), [*range(100), "… 1 more"]),
        pytest.param("x" * 9000, "x" * 8000 + "… (9000 characters)", id="long"),
        pytest.param(10**5000, "<int that cannot be shown>", id="huge"),
    ],
)
def test_values(value: object, shown: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert written(capsys, value=value)["value"] == shown


def test_the_event_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert written(capsys, "a\nb\x1b")["event"] == "a\\nb\\x1b"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("password", "x", "***"),
        ("key", "x", "***"),
        ("authorization", ["x"], "***"),
        ("unique_key", "stats", "stats"),
        ("headers", {"Authorization": "Bearer x", "A": "b"}, {"Authorization": "***", "A": "b"}),
        ("url", "postgresql://u:pw@h/d", "postgresql://u:***@h/d"),
        ("error", "could not connect: password=pw", "could not connect: password=***"),
        ("text", "x canary-registered y", "x *** y"),
        ("canary-registered", 1, None),
    ],
)
def test_secrets(name: str, value: object, shown: object, capsys: pytest.CaptureFixture[str]) -> None:
    log.register_secrets(["canary-registered", "abc"])
    line = written(capsys, "event", **{name: value})
    assert line.get(name) == shown
    assert "canary" not in json.dumps(line)


def test_short_secrets_do_not_star_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.register_secrets(["", "a", "abc"])
    assert written(capsys, value="abc")["value"] == "abc"


@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_have_no_locals(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    log.register_secrets(["canary-registered"])
    log.configure(json=as_json)
    canary = "canary-" + "local"
    try:
        raise ValueError("pool of postgresql://u:canary-pw@h failed\x1b, " + "canary-registered"[:17])
    except ValueError:
        structlog.get_logger().exception("job.failed")
    text = capsys.readouterr().err
    assert "ValueError" in text
    assert "***@h failed\\" in text
    assert canary not in text
    assert "\x1b" not in text


def circular() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def deep() -> BaseException:
    error: Exception = ValueError("inmost")
    for _ in range(2000):
        error = ExceptionGroup("group", [error])
    return error


class Mute(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("make", [circular, deep, Mute, lambda: ExceptionGroup("many", [ValueError()] * 5000)])
def test_hostile_exceptions(make: Any, as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=as_json)
    structlog.get_logger().error("job.failed", exc_info=make())
    assert "job.failed" in capsys.readouterr().err


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(value=anything)
def test_anything_makes_one_json_line(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    line = written(capsys, "event", value=value)
    assert set(line) == {"event", "level", "timestamp", "value"}
    assert not log._HOSTILE.search(json.dumps(line, ensure_ascii=False).replace("\\", ""))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=anything)
def test_anything_goes_to_a_console(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=False)
    structlog.get_logger().info("event", value=value)
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert not log._HOSTILE.search(text)


def test_level(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=True, level="warning")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_libraries_take_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(json=True)
    logging.getLogger("asyncio").error("lost %s", "postgresql://u:pw@h")
    logging.getLogger("asyncio").error("lost %s %s", "one")  # noqa: PLE1206 - libraries do make this mistake
    logging.getLogger("asyncio").log(35, "between")
    logging.getLogger("asyncio").info("chatter")
    assert [(line["event"], line["level"], line["logger"]) for line in lines(capsys)] == [
        ("lost postgresql://u:***@h", "error", "asyncio"),
        ("lost %s %s", "error", "asyncio"),
        ("between", "warning", "asyncio"),
    ]


def test_json_unless_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    structlog.get_logger().info("event")
    assert lines(capsys)[0]["event"] == "event"


def test_colours_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log.configure()
    structlog.get_logger().info("event")
    assert "\x1b[" in capsys.readouterr().err
    monkeypatch.setenv("NO_COLOR", "1")
    log.configure()
    structlog.get_logger().info("event")
    assert "\x1b" not in capsys.readouterr().err


def test_a_closed_standard_error_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def isatty(self) -> bool:
            return False

        def write(self, _: str) -> NoReturn:
            raise BrokenPipeError

        def flush(self) -> NoReturn:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    log.configure()
    structlog.get_logger().info("event")


@pytest.mark.parametrize("pattern", ["a", "a://", "password=", "a.a-", "u:", "a://u:", "'", "Bearer ", "_"])
def test_long_values_cost_little(pattern: str) -> None:
    log.register_secrets(["canary-registered"])
    start = time.perf_counter()
    assert len(log.safe(pattern * 10**5)) < 40_000
    assert time.perf_counter() - start < 1
