"""Addresses as they are written in the file: of the database, and of what is called."""

import re
from urllib.parse import parse_qsl, urlsplit

_HOST = re.compile(r"(?:\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>.*))?")


def is_database(url: str) -> bool:
    """False where a bare character of a password ends the host too early: what is left of it may look like a port.

    And for what the driver stumbles over: a port that is none, a gap in a list of hosts, a parameter without a value.
    """
    try:
        parts = urlsplit(url)
        given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:  # a bracket that nothing closes, too
        return False
    _, at, hosts = parts.netloc.rpartition("@")
    strayed = "@" in parts.path or bool(parts.fragment) or (not at and "@" in parts.query.partition("=")[0])
    gap = any("," in listed and "" in listed.split(",") for listed in (hosts, given.get("host", "")))
    places = [_HOST.fullmatch(host) for host in hosts.split(",")]
    ports = [place["port"] for place in places if place and place["port"] is not None]
    ports += given["port"].split(",") if "port" in given else []
    return not strayed and not gap and all(places) and all(map(_is_port, ports))


def _is_port(text: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", text) is not None and 0 < int(text) <= 65535


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
