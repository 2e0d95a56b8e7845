"""The list of attacks in attacks.toml, read."""

import tomllib
from typing import Any

from tests.hostile.attack import Attack
from tests.sql.test_roles import SHADOWS
from tests.support import ROOT

_FILE = tomllib.loads((ROOT / "tests" / "hostile" / "attacks.toml").read_text(encoding="utf-8"))
# What a session may put in the way of names without a schema, in the one schema that is everybody's own.
_BEFORE = {
    **_FILE.pop("before"),
    "shadows": [
        said
        for each in SHADOWS.split(";\n")
        if (said := each.strip()).startswith(("create temp", "create function pg_temp"))
    ],
}


def _statements(said: str | list[str]) -> tuple[str, ...]:
    given = [said] if isinstance(said, str) else said
    return tuple(part for each in given for part in (_BEFORE[each[1:]] if each.startswith("@") else [each]))


def _attacks(groups: list[dict[str, Any]]) -> list[Attack]:
    return [
        Attack(what, tuple(group["who"]), _statements(said), group["must"])
        for group in groups
        for what, said in group["attacks"].items()
    ]


LISTS = {name: _attacks(groups) for name, groups in _FILE.items()}
