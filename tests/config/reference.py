"""docs/configuration.md, made from the models."""

from collections.abc import Iterator
from typing import Any

from worker.config import config_schema

Schema = dict[str, Any]

_INTRODUCTION = """\
# worker.toml

Every key, made from the models in `worker/config/`; a test keeps this page and them alike.
`worker check --config-only` reads a file and names all its faults at once; `worker config show` prints what is in
force, without secrets.

- A *duration* is a number and a unit: `"500ms"`, `"30s"`, `"5m"`, `"24h"`, `"7d"`.
- `$NAME` is taken from the environment in keys marked with **$**, and nowhere else. `$$` is a dollar. A name that is
  not set, or empty, is a fault.
- Where `NAME` is not set, `$NAME` is what stands in the file that `NAME_FILE` names, or in the file `NAME` of
  `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`), without its last line break
  ([secrets](security.md#secrets)). `NAME` and `NAME_FILE` at once are a fault, and so is a file that cannot be used.
- `DATABASE_URL`, of the environment or of such a file, wins over `database.url`, and with an `[http]` section `PORT`
  makes `http.listen` `0.0.0.0:$PORT`. Nothing else is taken from the environment.
- `{name}` in `body`, `unique_key`, `concurrency_key` and the `key` of `coalesce` and `rate` is a value of the job:
  `tenant_id`, `correlation_id`, `id` and `job_type` are columns, other names are keys of the payload. A value that is
  exactly one placeholder keeps its JSON type, otherwise it becomes text. `{{` and `}}` are braces.
- A job has exactly one of `steps`, `python` and `http`.
- Unknown keys are faults.
"""

_TOP = "The top of the file"

_PLAIN = {"integer": "whole number", "number": "number", "boolean": "true or false", "object": "table"}


def reference() -> str:
    """The whole page."""
    schema = config_schema()
    return "\n".join([_INTRODUCTION, *_section(_TOP, schema, schema["$defs"], set())])


def _section(title: str, section: Schema, models: Schema, done: set[str]) -> Iterator[str]:
    yield f"## {title}\n\n{section['description']}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |"
    for name, value in section["properties"].items():
        required = name in section.get("required", ())
        yield f"| `{name}` | {_type(value)} | {_default(value, required)} | {_meaning(value, models)} |"
    yield ""
    for name, value in section["properties"].items():
        model, place = _inner(value)
        if model and model not in done:
            done.add(model)
            inner = name if title.startswith("The ") else f"{title.strip('`[]')}.{name}"
            header = f"[[{inner}]]" if value.get("type") == "array" else f"[{inner}{place}]"
            yield from _section(f"`{header}`", models[model], models, done)


def _inner(value: Schema) -> tuple[str | None, str]:
    """The model of the table in a value, and what its header says after the key."""
    value = _without_null(value)
    for found, place in ((value, ""), (value.get("additionalProperties"), ".NAME"), (value.get("items"), "")):
        if isinstance(found, dict) and "$ref" in found:
            return found["$ref"].rpartition("/")[2], place
    return None, ""


def _type(value: Schema) -> str:
    value = _without_null(value)
    if "enum" in value or "const" in value:
        return " or ".join(f'`"{choice}"`' for choice in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return "list of tables" if "$ref" in value["items"] else f"list of {_type(value['items'])}"
    if "$ref" in value:
        return "table"
    if value.get("type") == "string":
        return "duration" if "pattern" in value else "text **$**" if "$comment" in value else "text"
    if isinstance(inner := value.get("additionalProperties"), dict):
        return "tables, by name" if "$ref" in inner else f"table of {_type(inner)}"
    return _PLAIN[value["type"]] + _bounds(value)


def _bounds(value: Schema) -> str:
    low, high = value.get("minimum"), value.get("maximum")
    if low is None:
        return ""
    return f", {low} or more" if high is None else f", {low} to {high}"


def _default(value: Schema, required: bool) -> str:
    if required:
        return "*required*"
    given = value.get("default")
    if given is None or given in ([], {}):
        return "–"
    texts = {True: "true", False: "false"} if isinstance(given, bool) else {}
    return f"`{texts.get(given) if texts else _toml(given)}`"


def _toml(given: object) -> str:
    if isinstance(given, str):
        return f'"{given}"'
    return "[" + ", ".join(map(_toml, given)) + "]" if isinstance(given, list | tuple) else str(given)


def _without_null(value: Schema) -> Schema:
    choices = [choice for choice in value.get("anyOf", ()) if choice.get("type") != "null"]
    return choices[0] if choices else value


def _meaning(value: Schema, models: Schema) -> str:
    model, _ = _inner(value)
    text: str = value.get("description") or models[str(model)]["description"]
    return text.replace("|", "\\|")
