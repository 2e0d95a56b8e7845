"""What is thrown at the configuration's loader and at payloads; what may come of it: a value, or a refusal in words.

Used in short by tests/test_fuzz.py, and for ten minutes each by the nightly tier.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.heart import job
from tests.support import ROOT
from worker import exact
from worker.config import load
from worker.errors import ConfigError, InvalidJob
from worker.web.api.models import NewJob
from worker.web.reply import redacted

HANG_SECONDS = 1.0  # of one example, on a quiet machine
LINES = (ROOT / "worker.toml").read_text(encoding="utf-8").splitlines()
KEYS = sorted({line.partition("=")[0].strip() for line in LINES if "=" in line and not line.startswith("#")})
VALUES = ('""', "-1", "nan", "{}", "[]", "[[]]", '"5s"', '"$X"', '"{tenant_id}"', "1979-05-27", "true", "0x7fffff",
          '"\\u0000"', '"' + "a" * 5_000 + '"', "{ sql = 1 }", '["a", 2]', "9e999", '"0 2 30 2 *"')  # fmt: skip
ENVIRONMENT = {"DATABASE_URL": "postgresql://postgres@/x", "X": "y", "PORT": ""}


def sayings() -> st.SearchStrategy[str]:
    """A line that could stand in the file, or nearly."""
    key = st.sampled_from(KEYS) | st.text(max_size=20)
    table = key.map(lambda name: f"[job.{name}]") | st.sampled_from(
        ("[http]", "[[http.keys]]", "[worker", "[job.a.steps]")
    )
    pair = st.tuples(key, st.sampled_from(VALUES) | st.text(max_size=30)).map(lambda both: f"{both[0]} = {both[1]}")
    return pair | table | st.sampled_from(LINES) | st.text(max_size=60)


@st.composite
def files(draw: st.DrawFn) -> str:
    """The shipped file with some of its lines gone, doubled, or others among them; or something else altogether."""
    lines = list(LINES)
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(lines) - 1)) if lines else 0
        what = draw(st.sampled_from(("insert", "replace", "delete", "cut")))
        if what == "insert":
            lines.insert(at, draw(sayings()))
        elif lines and what == "replace":
            lines[at] = draw(sayings())
        elif lines and what == "delete":
            del lines[at : at + draw(st.integers(1, 30))]
        elif lines:
            lines[at] = lines[at][: draw(st.integers(0, 40))]
    return "\n".join(lines) if draw(st.integers(0, 9)) else draw(st.text(max_size=300))


def documents() -> st.SearchStrategy[str]:
    """JSON as Postgres may hold it, and texts that are none."""
    number = st.integers() | st.floats() | st.integers(min_value=2**53, max_value=10**60)
    leaf = st.none() | st.booleans() | number | st.text(max_size=50)
    tree = st.recursive(leaf, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner))
    deep = st.integers(1, 3_000).map(lambda n: "[" * n + "]" * n)
    long = st.integers(1, 6_000).map(lambda n: '{"n": ' + "9" * n + "}")
    return tree.map(json.dumps) | deep | long | st.text(max_size=200)


def config_is_read_or_refused(text: str, folder: Path) -> None:
    """The loader has an answer for every file: a configuration, or all that is wrong with it."""
    path = folder / "worker.toml"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    faults = ["none"]
    try:
        load(path, ENVIRONMENT)
    except ConfigError as error:
        faults = error.faults
    assert faults
    assert all(fault.strip() for fault in faults)


def payload_is_read_or_refused(text: str) -> None:
    """A payload has a value, or its job is invalid; what has one can be shown, and enqueued or refused."""
    claimed = job(text=text)
    for read in (lambda: claimed.payload, lambda: claimed.value("tenant_id"), lambda: claimed.argument("a")):
        try:
            read()
        except InvalidJob:
            continue
    try:
        value = claimed.payload
    except InvalidJob:
        return
    exact.loads(exact.dumps(redacted(value)).decode())
    with suppress(ValidationError):
        NewJob.model_validate({"job_type": "work", "payload": value})


def examples(
    strategy: st.SearchStrategy[str], check: Callable[[str], Any], count: int, drawn: int
) -> tuple[int, float]:
    """Run a check on so many examples; answers with how many there were, and with the seconds of the slowest."""
    ran, slowest = 0, 0.0

    @seed(drawn)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck),
              phases=[Phase.generate, Phase.shrink])  # fmt: skip
    @given(strategy)
    def one(text: str) -> None:
        nonlocal ran, slowest
        began = time.process_time()
        check(text)
        slowest = max(slowest, time.process_time() - began)
        ran += 1

    one()
    return ran, slowest
