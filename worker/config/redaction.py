"""What must not be shown: names that mean a secret, and passwords inside texts. Pure."""

import re
from functools import lru_cache

STARS = "***"

# "key" alone, not unique_key or concurrency_key: those are what an operator searches for.
_NAME = re.compile(
    r"(?:.*[_-])?(?:password|passwd|pwd|secret|secrets|token|authorization|cookie|credentials?)(?:[_-].*)?"
    r"|key|(?:.*[_-])?(?:api|access|private|service|signing|encryption|webhook)[_-]?key"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_STARRED = rf"\g<before>{STARS}"
_URL = re.compile(r"(?P<before>(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@]*:)[^\s/?#]*(?=@)")
_PAIR = re.compile(
    r"(?P<before>\b(?:\w*password|passwd|pwd|\w*secret|\w*token|api_?key)[\"']?\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&\"'})]+)",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?P<before>\b(?:Bearer|Basic) +)[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE)


@lru_cache(1024)
def secret_name(name: str) -> bool:
    """True when a value of this name is not to be shown: password, client_secret, apiKey, Authorization …"""
    return _NAME.fullmatch(_HUMP.sub("_", name).lower()) is not None


def mask(text: str) -> str:
    """`text` with passwords in URLs, `password=…` pairs and bearer tokens starred."""
    # The marks are looked for first: most texts have none, and patterns cost ten times as much.
    for marks, pattern in ((("@",), _URL), ((" ",), _SCHEME), (("=", ":"), _PAIR)):
        if any(mark in text for mark in marks):
            text = pattern.sub(_STARRED, text)
    return text
