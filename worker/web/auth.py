"""Who may use the HTTP side: bearer keys, known by their sha256 only."""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Literal

from worker.config.models import Http, HttpKey

Scope = Literal["read", "enqueue", "operate"]

_LONGEST = 1_000  # bytes of an Authorization header that is looked at


class Keys:
    """The keys of `[[http.keys]]`. On loopback none is asked for: whoever gets there is on this machine already."""

    def __init__(self, http: Http) -> None:
        self._open = http.loopback
        self._keys = http.keys

    def allow(self, authorization: Iterable[bytes], scope: Scope) -> bool:
        """Whether a request with these Authorization headers may do what `scope` names."""
        if self._open:
            return True
        key = self._holder(list(authorization))
        return key is not None and scope in key.scopes

    def _holder(self, authorization: list[bytes]) -> HttpKey | None:
        # Exactly one header: with two it would be a matter of taste which one counts.
        if len(authorization) != 1 or len(authorization[0]) > _LONGEST:
            return None
        scheme, _, token = authorization[0].partition(b" ")
        if scheme.lower() != b"bearer" or not token.strip():
            return None
        given = hashlib.sha256(token.strip()).hexdigest()
        found = None
        for key in self._keys:  # all of them, so that the time tells nothing about which one it was
            if hmac.compare_digest(given, key.sha256.get_secret_value()):
                found = key
        return found
