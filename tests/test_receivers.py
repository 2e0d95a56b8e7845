"""The shipped receivers of the cache webhook say the same: the demo's, and each example whose runtime is there."""

import json
import sys
from importlib import util

import pytest

from tests.support import ROOT
from worker.demo.receiver import Receiver
from worker.outbound import Outbound, Request

EXAMPLE = ROOT / "examples/receivers/fastapi_receiver.py"
GOOD = {"tags": ["a", "b"], "source": "worker", "requestId": "c"}
ASKED = [
    ("k", GOOD, 200),
    ("k", {**GOOD, "requestId": None}, 200),
    ("x", GOOD, 401),
    ("", GOOD, 401),
    ("é", GOOD, 401),
    ("x", {}, 401),
    ("k", {}, 400),
    ("k", [], 400),
    ("k", {**GOOD, "tags": "a"}, 400),
    ("k", {**GOOD, "tags": []}, 400),
    ("k", {**GOOD, "tags": [1]}, 400),
    ("k", {**GOOD, "tags": [""]}, 400),
    ("k", {**GOOD, "source": 1}, 400),
]


@pytest.mark.parametrize(("key", "body", "status"), ASKED)
async def test_the_receiver_of_the_demo(key, body, status):
    outbound = Outbound()
    async with Receiver("k") as receiver:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = await outbound.send(Request("POST", receiver.url, headers, json.dumps(body).encode()))
        await outbound.close()
    assert answer.status == status
    assert receiver.tags == (GOOD["tags"] if status == 200 else [])
    assert answer.json()["success"] is (status == 200)


def test_the_example_for_fastapi_is_python():
    compile(EXAMPLE.read_text(encoding="utf-8"), EXAMPLE, "exec")


@pytest.fixture
def example(monkeypatch):
    """The module, with a cache that cannot let go of `stuck`."""
    monkeypatch.setenv("INTERNAL_API_KEY", "k")
    spec = util.spec_from_file_location("fastapi_receiver", EXAMPLE)
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fastapi_receiver", module)
    spec.loader.exec_module(module)

    def invalidate(tag):
        if tag == "stuck":
            raise ValueError(tag)

    monkeypatch.setattr(module, "invalidate", invalidate)
    return module


@pytest.mark.parametrize(("key", "body", "status"), [*ASKED, ("k", {**GOOD, "tags": ["a", "stuck"]}, 207)])
async def test_the_example_for_fastapi(example, key, body, status):
    said, answer = await asgi(example.app, f"Bearer {key}", json.dumps(body).encode())
    assert said == status
    if status in (200, 207):
        assert answer["failed_tags"] == (["stuck"] if status == 207 else [])
        assert answer["success"] is (status == 200)


async def asgi(app, authorization, body):
    """One call of the app's webhook, by ASGI alone; answers with status and JSON."""
    path = "/api/internal/cache/invalidate"
    headers = [(b"authorization", authorization.encode("latin-1")), (b"content-type", b"application/json")]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
             "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers,
             "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}  # fmt: skip
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))
