"""Sessions of people who logged in with a key: a signed cookie, and nothing kept here."""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from worker.config.models import Http, HttpKey
from worker.web.auth import Keys, Visitor

SESSION_SECONDS = 12 * 3600
SECURE, PLAIN = "__Host-worker", "worker_session"  # the first is one that a browser takes over TLS only, for all paths
_LONGEST = 300


class Sessions:
    """Makes and reads the cookie: name of the key, end, a nonce, and their signature.

    What signs is derived from the key's sha256 and a secret, so whoever can read worker.toml alone makes no session,
    and a session ends when its key is replaced or taken away.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, http: Http, clock: Callable[[], float] = time.time) -> None:
        self._keys = Keys(http)
        self._clock = clock
        given = http.session_secret
        self._secret = given.get_secret_value().encode() if given else secrets.token_bytes(32)

    def begin(self, key: HttpKey) -> str:
        """The cookie's value for somebody who showed this key."""
        said = f"{key.name}|{int(self._clock()) + SESSION_SECONDS}|{secrets.token_urlsafe(12)}"
        return f"{_packed(said.encode())}.{self._signature(key, said)}"

    def visitor(self, cookie: str) -> Visitor | None:
        """Whose cookie it is; None when it is nobody's, or too old."""
        packed, _, signature = cookie.partition(".")
        try:
            said = base64.b64decode(packed.encode(), altchars=b"-_", validate=True).decode()
            name, until, _ = said.split("|")
            key = self._keys.named(name)
            fresh = int(until) > self._clock()
        except (ValueError, binascii.Error):
            return None
        if key is None or not hmac.compare_digest(self._signature(key, said).encode(), signature.encode()) or not fresh:
            return None
        return Visitor(key.name, frozenset(key.scopes), "session", self._signature(key, f"csrf|{said}"))

    def guest(self) -> Visitor:
        """Who is let in without a key."""
        token = hmac.new(self._secret, b"csrf|open", hashlib.sha256).hexdigest()
        return Visitor("loopback", frozenset(("read", "enqueue", "operate")), "open", token)

    def _signature(self, key: HttpKey, said: str) -> str:
        derived = hmac.new(self._secret, key.sha256.get_secret_value().encode(), hashlib.sha256).digest()
        return hmac.new(derived, said.encode(), hashlib.sha256).hexdigest()


def found(cookies: list[bytes]) -> str:
    """The session's cookie of the Cookie headers, the one for TLS first; empty where there is none."""
    pairs = [each.strip().partition(b"=") for line in cookies for each in line.split(b";")]
    for wanted in (SECURE.encode(), PLAIN.encode()):
        values = [value for name, _, value in pairs if name == wanted and len(value) <= _LONGEST]
        if values:
            return values[0].decode("latin-1")
    return ""


def set_cookie(value: str, *, secure: bool) -> str:
    """The Set-Cookie header for a session; an empty value ends it."""
    age = SESSION_SECONDS if value else 0
    told = f"{SECURE if secure else PLAIN}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict"
    return f"{told}; Secure" if secure else told


def _packed(value: bytes) -> str:
    # Padding stays: "=" is allowed in a cookie's value, and what is read back is read strictly.
    return base64.urlsafe_b64encode(value).decode()
