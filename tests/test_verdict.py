"""What an attempt came to, as Postgres can keep it."""

import dataclasses
import json
from datetime import UTC, datetime

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.heart import job
from worker.outcome import Cancelled, Completed, Failed, Released, Retried, Skipped, Snoozed
from worker.verdict import RESULT_BYTES, Verdict, encode

CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)
DEEP: list[object] = []
for _ in range(5_000):
    DEEP = [DEEP]
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)


class Odd:
    def __repr__(self) -> str:
        raise ValueError


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"a": 1}, {"a": 1}),
        (0, 0),
        (False, False),
        ("", ""),
        (float("nan"), None),
        (float("inf"), None),
        ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
        (Point(3), {"x": 3}),
        ({"n": 10**30, 1: [-(2**63) - 1]}, {"n": 10**30, "1": [-(2**63) - 1]}),
        ([2**64, "\x00"], [2**64, "\\0"]),
        (UNTIL, "2030-01-01T00:00:00+00:00"),
        ("a\x00b", "a\\0b"),
        ({"k\x00": ["\x00"]}, {"k\\0": ["\\0"]}),
        ("\\u0000", "\\u0000"),
    ],
)  # fmt: skip
def test_what_is_kept(value, kept):
    assert json.loads(encode(value) or "null") == kept


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        CIRCLE,
        DEEP,
        "\ud800",
        {"\udfff": 1},
        {1, 2},
        Odd(),
        object,
        10**5000,
        "x" * RESULT_BYTES,
        "ö" * 40_000,
    ],
    ids=["bytes", "circle", "deep", "surrogate", "key", "set", "odd", "class", "long", "oversize", "oversize in bytes"],
)
def test_what_is_not_kept_says_why(value):
    assert set(json.loads(encode(value) or "")) <= {"not_kept", "bytes"}


@pytest.fixture(scope="module")
async def server(cluster):
    connection = await asyncpg.connect(cluster.dsn())
    yield connection
    await connection.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet=st.characters(codec=None)), inner),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=50))
def test_whatever_comes_back_is_json_without_nul(values):
    for value in values:
        text = encode(value)
        assert text is None or (json.loads(text) is not ... and "\x00" not in text)
        assert text is None or len(text.encode()) <= 2 * RESULT_BYTES


async def test_postgres_takes_what_is_kept(server):
    for value in ["\x00", {"\x00": "\x00"}, "\\u0000", "\\\\u0000", float("nan"), b"x", CIRCLE, "\ud800", 1e308, -0.0]:
        await server.fetchval("select $1::jsonb", encode(value))


@pytest.mark.parametrize(
    ("outcome", "written"),
    [
        (Completed({"a": 1}), {"status": "completed", "result": '{"a":1}'}),
        (Completed(), {"status": "completed"}),
        (Skipped("gone\x00"), {"status": "skipped", "reason": "gone\\0"}),
        (Snoozed(5), {"status": "pending", "delay": 5, "counted": False, "snoozed": True, "keep_steps": False}),
        (Snoozed(-5, keep_steps=True), {"status": "pending", "counted": False, "snoozed": True}),
        (
            Snoozed(until=UNTIL),
            {"status": "pending", "until": UNTIL, "counted": False, "snoozed": True, "keep_steps": False},
        ),
        (Cancelled("by ada"), {"status": "cancelled", "reason": "by ada"}),
        (Retried("x", 3.5), {"status": "pending", "delay": 3.5, "error": "x"}),
        (Retried("x", 0.0, counted=False), {"status": "pending", "error": "x", "counted": False}),
        (Failed("x", "exhausted"), {"status": "failed", "reason": "exhausted", "error": "x"}),
        (Released(), {"status": "pending", "counted": False}),
    ],
)
def test_an_outcome_as_a_verdict(outcome, written):
    plain = {
        "id": 1, "claim": 9, "status": "", "reason": None, "delay": 0.0, "until": None, "counted": True,
        "snoozed": False, "keep_steps": True, "error": None, "result": None,
        "payload": None, "follows": None,
    }  # fmt: skip
    assert Verdict.of(job(claim=9), outcome)._asdict() == plain | written
