"""Keys: known by their sha256, compared whole, and a scope is not another."""

import hmac

import pytest

from tests.web.support import KEY, WRITER, guarded, http
from worker.web import auth
from worker.web.auth import Keys

RIGHT = f"Bearer {KEY}".encode()


def allowed(*headers: bytes, scope: auth.Scope = "read") -> bool:
    return Keys(guarded()).allow(headers, scope)


def test_the_right_key_with_the_right_scope() -> None:
    assert allowed(RIGHT)
    assert allowed(f"bearer   {KEY}  ".encode())
    assert allowed(f"Bearer {WRITER}".encode(), scope="operate")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [KEY.encode()],
        [f"Basic {KEY}".encode()],
        [f"Bearer {KEY}x".encode()],
        [f"Bearer {KEY[:-1]}".encode()],
        [f"Bearer {KEY.upper()}".encode()],
        [b"Bearer \xff\xfe\x00"],
        [b"Bearer " + b"a" * 100_000],
        [RIGHT, RIGHT],
        [RIGHT, b"Bearer x"],
    ],
)
def test_anything_else_is_refused(headers: list[bytes]) -> None:
    assert not allowed(*headers)


def test_the_digest_is_not_the_key() -> None:
    for key in guarded().keys:
        assert not allowed(f"Bearer {key.sha256.get_secret_value()}".encode())


def test_a_scope_is_not_another() -> None:
    assert not allowed(f"Bearer {WRITER}".encode(), scope="read")
    assert not allowed(RIGHT, scope="operate")


def test_on_loopback_none_is_asked_for() -> None:
    assert Keys(http("127.0.0.1:0")).allow([], "read")
    assert Keys(http("[::1]:0")).allow([], "read")


def test_beyond_loopback_without_keys_nobody_comes_in() -> None:
    """The configuration refuses that; should it ever not, the door is shut."""
    assert not Keys(http("0.0.0.0:0")).allow([RIGHT], "read")


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    class Noting:
        @staticmethod
        def compare_digest(one: str, other: str) -> bool:
            compared.append(other)
            return hmac.compare_digest(one, other)

    monkeypatch.setattr(auth, "hmac", Noting)
    assert allowed(RIGHT)
    assert compared == [key.sha256.get_secret_value() for key in guarded().keys]
