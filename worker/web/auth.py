"""Who may use the HTTP side: bearer keys, known by their sha256 only."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from worker.config.models import Http, HttpKey

Scope = Literal["read", "enqueue", "operate"]
Way = Literal["key", "session", "open"]

_LONGEST = 1_000  # bytes of an Authorization header that is looked at


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who was let in.

    Attributes:
        name: of the key; `loopback` where no key is asked for.
        way: by a bearer key, by the session of a login, or because the listener is open to this machine.
        csrf: the token that a browser has to send along with whatever changes something; empty for `key`.
    """

    name: str
    scopes: frozenset[Scope]
    way: Way
    csrf: str = ""

    @property
    def actor(self) -> str:
        """What events call this visitor."""
        return f"web:{self.name}"

    def may(self, scope: Scope) -> bool:
        """Whether this visitor has a scope."""
        return scope in self.scopes


class Keys:
    """The keys of `[[http.keys]]`."""

    def __init__(self, http: Http) -> None:
        self._loopback = http.loopback
        self._keys = http.keys

    @property
    def open(self) -> bool:
        """Whether nobody needs a key: there is none, and whoever gets here is on this machine already."""
        return self._loopback and not self._keys

    def allow(self, authorization: Iterable[bytes], scope: Scope) -> bool:
        """Whether a request with these Authorization headers may see the probes and metrics; on loopback all may."""
        if self._loopback:
            return True
        token = bearer(list(authorization))
        key = self.holder(token) if token else None
        return key is not None and scope in key.scopes

    def holder(self, token: bytes) -> HttpKey | None:
        """The key that a token is, if it is one."""
        given = digest(token)
        found = None
        for key in self._keys:  # all of them, so that the time tells nothing about which one it was
            if hmac.compare_digest(given, key.sha256.get_secret_value()):
                found = key
        return found

    def named(self, name: str) -> HttpKey | None:
        """The key of that name, as it is configured now."""
        return next((key for key in self._keys if key.name == name), None)


def bearer(authorization: list[bytes]) -> bytes:
    """The token of the one Authorization header: with two it would be a matter of taste which one counts."""
    if len(authorization) != 1 or len(authorization[0]) > _LONGEST:
        return b""
    scheme, _, token = authorization[0].partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def digest(token: bytes) -> str:
    """What stands in worker.toml for a key."""
    return hashlib.sha256(token).hexdigest()
