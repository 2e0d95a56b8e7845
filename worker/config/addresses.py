"""Addresses as they are written in the file: of the database, and of what is called."""

import re
from urllib.parse import urlsplit

_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^\[\]:]*)(?::[0-9]{1,5})?")


def is_database(url: str) -> bool:
    """False where a bare character of a password ends the host too early: what is left of it may look like a port."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket that nothing closes
        return False
    _, at, hosts = parts.netloc.rpartition("@")
    strayed = "@" in parts.path or bool(parts.fragment) or (not at and "@" in parts.query.partition("=")[0])
    return not strayed and all(_HOST.fullmatch(host) for host in hosts.split(","))


def checked(text: str) -> str:
    """An address that jobs call.

    Raises:
        ValueError: says what it must be.
    """
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or re.search(r"[\x00-\x20\x7f{}\\]", text):
        raise ValueError("must be a whole http:// or https:// address; placeholders do not count here")
    if "@" in parts.netloc:
        raise ValueError("credentials belong into headers, not into the address")
    return text
