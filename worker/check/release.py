"""What this release's SQL makes, read from its own text: what a database is compared with, and often the cure as well.

The files keep to forms that are easily told apart (a test compares what is read here with what a fresh database has).
"""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from worker import migrations

_FUNCTION = re.compile(
    r"^create or replace function (worker\.\w+)(?P<head>.*?)"
    r"(?:\bas \$\$(?P<body>.*?)\$\$;|^begin atomic$|^return .*?;$)"
    r".*?^comment on function (?P<signature>\1\([^)]*\)) is",
    re.MULTILINE | re.DOTALL,
)
_BODY = re.compile(r"\bas \$\$.*?\$\$;", re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*")
_SETTING = re.compile(r"\bset (\w+) = ('[^']*'|\w+(?:, ?\w+)*)")
_STATEMENTS = {
    "indexes": re.compile(r"\bcreate (?:unique )?index (?P<name>\w+) on (?P<relation>worker\.\w+)[^;]*;"),
    "triggers": re.compile(
        r"\bcreate (?:or replace )?trigger (?P<name>\w+) [^;]*? on (?P<relation>worker\.\w+)\b[^;]*;"
    ),
    "policies": re.compile(r"\bcreate policy (?P<name>\w+) on (?P<relation>worker\.\w+)\b[^;]*;"),
}
_RELATION = re.compile(
    r"\bcreate (?:or replace )?(?P<unlogged>unlogged )?(?P<kind>table|view|sequence)"
    r" (?P<name>worker\.\w+)(?P<rest>[^;]*);"
)
_OPTIONS = re.compile(r"\bwith \((?P<options>(?:fillfactor|autovacuum|security_invoker)[^)]*)\)(?: as |$)")
_FORCED = re.compile(r"\balter table (worker\.\w+) force row level security;")
_MEMBER = re.compile(r"\bgrant (worker_\w+) to (worker_\w+);")
_GRANT = re.compile(r"\bgrant (?P<rights>[a-z][^;]*?) on (?P<objects>[^;]*?) to (?P<roles>[\w, ]+);")
_REVOKE = "revoke all on all functions in schema worker from public;"
_CLOSED = re.compile(r"\brevoke usage on type ([^;]*?) from public;")
# What Postgres adds when it shows a definition, and what a person may leave out: none of it changes what is meant.
NOISE = (
    r"::(double precision|character varying|timestamp with time zone|\w+)|\mas\s+\w+|\musing btree|\mor replace"
    r"|\mwith \(fillfactor[^)]*\)|\mjob_step\.|[\s();]"
)
_SEVERAL = re.compile(r",\s*(?![^()]*\))")


@cache
def release() -> dict[str, list[dict[str, Any]]]:
    """Functions, relations, indexes, triggers, policies, rights and memberships, as the questions want them."""
    sources = [*migrations.files("migrations"), *migrations.files("functions")]
    plain = " ".join(word for file in sources for word in _COMMENT.sub("", _BODY.sub("", file.text)).split())
    functions = [found for file in sources for found in _functions(file)]
    return {
        "functions": functions,
        "relations": list(_relations(plain)),
        **{kind: [_statement(found) for found in form.finditer(plain)] for kind, form in _STATEMENTS.items()},
        "forced": [{"relation": name} for name in sorted(set(_FORCED.findall(plain)))],
        "members": [{"role": role, "member": member} for role, member in sorted(set(_MEMBER.findall(plain)))],
        "rights": _rights(plain),
        "closed": [{"type": name} for found in _CLOSED.findall(plain) for name in _several(found)],
    }


def _functions(file: migrations.SqlFile) -> Iterator[dict[str, Any]]:
    for found in _FUNCTION.finditer(file.text):
        head, body = _COMMENT.sub("", found["head"]), found["body"]
        yield {
            "signature": " ".join(found["signature"].split()),
            "file": f"sql/{file.name}",
            "body": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest() if body else None,
            "definer": "security definer" in head,
            "settings": sorted(name + "=" + value.strip("'") for name, value in _SETTING.findall(head)),
        }


def _relations(plain: str) -> Iterator[dict[str, Any]]:
    for found in _RELATION.finditer(plain):
        written = _OPTIONS.search(found["rest"])
        yield {
            "name": found["name"],
            "kind": found["kind"],
            "unlogged": bool(found["unlogged"]),
            "options": [option.replace(" ", "") for option in _several(written["options"])] if written else [],
        }


def _statement(found: re.Match[str]) -> dict[str, Any]:
    return {"name": found["name"], "relation": found["relation"], "statement": found[0]}


def _rights(plain: str) -> list[dict[str, Any]]:
    end = plain.rindex(_REVOKE)
    rights = {
        (kind, what, column, right, role)
        for found in _GRANT.finditer(plain)
        for kind, what in _objects(found["objects"])
        for right, column in _granted(found["rights"])
        for role in _several(found["roles"])
        if not (kind == "function" and role == "public" and found.start() < end)
    }
    names = ("kind", "object", "column", "right", "role")
    return [dict(zip(names, right, strict=True)) for right in sorted(rights, key=str)]


def _objects(text: str) -> Iterator[tuple[str, str]]:
    """What a grant is on: its kind, and its name as it is to be written in a grant."""
    kind, _, rest = text.strip().partition(" ")
    if kind in ("function", "schema", "sequence", "type"):
        yield from ((kind, each) for each in _several(rest))
    else:
        yield from (("table", each) for each in _several(text))


def _granted(text: str) -> Iterator[tuple[str, str | None]]:
    for each in _several(text):
        right, _, columns = each.partition("(")
        yield from (
            ((right.strip(), column.strip(" )")) for column in columns.split(",")) if columns else [(right, None)]
        )


def _several(text: str) -> list[str]:
    """The members of a list, commas inside parentheses apart."""
    return [each.strip() for each in _SEVERAL.split(text.strip())]
