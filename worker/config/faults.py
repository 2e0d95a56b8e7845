"""Faults with file, line and key: `worker.toml:14: job.stats_update.parrallel: unknown key; did you mean parallel?`"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails

from worker.config import shape
from worker.config.lines import Path as Key
from worker.config.models import Config

_AFTER_ALL_LINES = 1 << 60

_TABLE = "must be a table"
_SAID: Mapping[str, str] = {
    "missing": "missing",
    "model_type": _TABLE,
    "dict_type": _TABLE,
    "tuple_type": "must be a list",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "finite_number": "must be a finite number",
    "value_error": "{error}",
}


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault; sorts by line, those of the environment last."""

    line: int
    text: str

    @classmethod
    def of_environment(cls, message: str) -> "Fault":
        """One that no line of the file is to blame for."""
        return cls(_AFTER_ALL_LINES, f"environment {message}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where values came from: the file with its lines, and the keys that the environment gave."""

    path: Path
    lines: Mapping[Key, int]
    given: Mapping[Key, str]

    def fault(self, key: Key, message: str) -> Fault:
        """A fault of the value at `key`, or of the nearest table around it that is written down."""
        if key in self.given:
            return Fault.of_environment(f"{self.given[key]}: {dotted(key)}: {message}")
        line = next((self.lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in self.lines), 1)
        return Fault(line, f"{self.path}:{line}: {dotted(key)}: {message}")


def dotted(key: Key) -> str:
    """A key as a person writes it: http.keys[0].name"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}" for part in key).removeprefix(".")


def explain(error: ErrorDetails, source: Source) -> Fault:
    """A fault of pydantic's, in this project's words."""
    key = tuple(part for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        return source.fault(key, _unknown(key))
    return source.fault(key, _message(error) + _hint(key, error))


def _message(error: ErrorDetails) -> str:
    said = _SAID.get(error["type"])
    return said.format(**error.get("ctx", {})) if said else error["msg"]


def _unknown(key: Key) -> str:
    known = shape.known(Config, key[:-1])
    close = difflib.get_close_matches(str(key[-1]), known, 1)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; known here: {', '.join(sorted(known))}"


def _hint(key: Key, error: ErrorDetails) -> str:
    """Numbers are shown again; and a key of the job under the header of its steps is a trap of TOML's own."""
    match key:
        case ("job", job, "steps", name) if _message(error) == _TABLE and name in shape.known(Config, key[:2]):
            return f"; {name} is a key of the job, so it belongs above [job.{job}.steps]"
    given: Any = error.get("input")
    shown = isinstance(given, int | float) and abs(given) < 10**15 and not isinstance(given, bool)
    return f" (got {given})" if shown else ""


def _quoted(part: str) -> str:
    plain = part.isascii() and part.replace("_", "a").replace("-", "a").isalnum()
    return part if plain else '"' + part.encode("unicode_escape").decode().replace('"', '\\"') + '"'
