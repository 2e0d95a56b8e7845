"""Sessions: signed, bounded in time, and ended with their key."""

import pytest

from tests.web.support import KEY, digest, guarded, http
from worker.web.session import SECURE, SESSION_SECONDS, Sessions, found, set_cookie


def sessions(config=None, at=1_000_000.0):
    now = [at]
    made = Sessions(config or guarded(), lambda: now[0])
    return made, now


def test_a_session_is_its_keys_until_its_end():
    made, now = sessions()
    cookie = made.begin(guarded().keys[0])
    visitor = made.visitor(cookie)
    assert (visitor.name, visitor.scopes, visitor.way) == ("reader", {"read"}, "session")
    assert len(visitor.csrf) == 64
    now[0] += SESSION_SECONDS - 1
    assert made.visitor(cookie) == visitor
    now[0] += 1
    assert made.visitor(cookie) is None


def test_the_digest_in_the_file_signs_nothing():
    made, _ = sessions()
    other, _ = sessions()
    assert other.visitor(made.begin(guarded().keys[0])) is None


def test_a_shared_secret_makes_daemons_know_each_others_sessions():
    given = {"listen": "127.0.0.1:0", "session_secret": "s" * 32,
             "keys": [{"name": "a", "sha256": digest(KEY), "scopes": ["read"]}]}  # fmt: skip
    config = type(http()).model_validate(given)
    changed = given | {"keys": [{**given["keys"][0], "sha256": digest("new")}]}
    cookie = sessions(config)[0].begin(config.keys[0])
    assert sessions(config)[0].visitor(cookie).name == "a"
    assert sessions(type(config).model_validate(changed))[0].visitor(cookie) is None
    assert sessions(type(config).model_validate(given | {"keys": []}))[0].visitor(cookie) is None


def test_two_sessions_have_two_tokens():
    made, _ = sessions()
    one, other = (made.visitor(made.begin(guarded().keys[0])).csrf for _ in range(2))
    assert one != other


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ([], ""),
        ([b"a=b"], ""),
        ([b"worker_session=x"], "x"),
        ([b"a=b; worker_session=x==; c=d"], "x=="),
        ([b"worker_session=x", b"__Host-worker=y"], "y"),
        ([b"worker_session=" + b"x" * 1_000], ""),
        ([b"xworker_session=x"], ""),
    ],
)
def test_the_cookie_of_a_request(lines, value):
    assert found(lines) == value


def test_over_tls_a_browser_keeps_it_for_us_alone():
    assert set_cookie("v", secure=True).startswith(f"{SECURE}=v; Path=/; ")
    assert "Secure" in set_cookie("v", secure=True)
    assert "Secure" not in set_cookie("v", secure=False)
    assert "Max-Age=0" in set_cookie("", secure=False)
