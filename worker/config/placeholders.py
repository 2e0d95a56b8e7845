"""`{name}` in templates: checked at start, filled from a job's columns and payload. Pure."""

import json
import re
from collections.abc import Mapping

from worker.errors import InvalidJob

COLUMNS = frozenset({"tenant_id", "correlation_id", "id", "job_type"})

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|[{}]")
_WHOLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def names(template: str) -> tuple[str, ...]:
    """The placeholders of a template, in order.

    Raises:
        ValueError: a brace that is neither doubled nor around a name.
    """
    found = []
    for token in _TOKEN.finditer(template):
        if token[0] in ("{", "}"):
            raise ValueError(f"a lone {token[0]} at character {token.start() + 1}; write {{name}}, or {token[0] * 2}")
        if token["name"]:
            found.append(token["name"])
    return tuple(found)


def check(template: object) -> None:
    """Refuse a faulty template, at any depth of a body."""
    if isinstance(template, str):
        names(template)
    elif isinstance(template, Mapping):
        for value in template.values():
            check(value)
    elif isinstance(template, list | tuple):
        for value in template:
            check(value)


def fill(template: object, columns: Mapping[str, object], payload: Mapping[str, object]) -> object:
    """A template with its placeholders replaced, at any depth.

    tenant_id, correlation_id, id and job_type mean columns, other names mean payload keys. A text that is exactly one
    placeholder becomes the value itself; inside a longer text a value that is no text is written as JSON.

    Raises:
        InvalidJob: a placeholder that this job has no value for.
    """
    if isinstance(template, str):
        return _fill_text(template, columns, payload)
    if isinstance(template, Mapping):
        return {key: fill(value, columns, payload) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [fill(value, columns, payload) for value in template]
    return template


def _fill_text(template: str, columns: Mapping[str, object], payload: Mapping[str, object]) -> object:
    if whole := _WHOLE.fullmatch(template):
        return _value(whole[1], columns, payload)

    def text(token: re.Match[str]) -> str:
        return _text(_value(token["name"], columns, payload)) if token["name"] else token[0][0]

    return _TOKEN.sub(text, template)


def _value(name: str, columns: Mapping[str, object], payload: Mapping[str, object]) -> object:
    source, kind = (columns, "column") if name in COLUMNS else (payload, "payload key")
    if name not in source:
        raise InvalidJob(f"unknown placeholder {{{name}}}: the job has no such {kind}")
    return source[name]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
