"""As much of YAML and of JSON Schema as the deploy files use; what is beyond raises, so nothing is read wrongly."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

_KEY = re.compile(r"([A-Za-z_][\w./-]*):(?: +(.*))?")
_PLAIN = re.compile(r"[A-Za-z_./][\w./ -]*|[0-9]+[smh]")
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}

Lines = list[tuple[int, str]]


def read_yaml(text: str) -> Any:
    """Block mappings and sequences; plain words, numbers, what JSON has and literal blocks as values; comments."""
    lines: Lines = []
    for line in text.splitlines():
        bare = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if bare:
            lines.append((len(bare) - len(bare.lstrip()), bare.lstrip()))
    value = _block(lines)
    if lines:
        raise ValueError(f"badly indented: {lines[0][1]}")
    return value


def _block(lines: Lines) -> Any:
    return _sequence(lines) if lines[0][1].startswith("- ") else _mapping(lines)


def _sequence(lines: Lines) -> list[Any]:
    depth, found = lines[0][0], []
    while lines and lines[0][0] == depth and lines[0][1].startswith("- "):
        item = lines[0][1][2:]
        if _KEY.fullmatch(item):
            lines[0] = (depth + 2, item)
            found.append(_mapping(lines))
        else:
            found.append(_scalar(lines.pop(0)[1][2:]))
    return found


def _mapping(lines: Lines) -> dict[str, Any]:
    depth, found = lines[0][0], {}
    while lines and lines[0][0] == depth:
        match = _KEY.fullmatch(lines.pop(0)[1])
        if match is None or match[1] in found:
            raise ValueError(f"not a mapping of different keys: {match and match[0]}")
        if match[2] is None and (not lines or lines[0][0] <= depth):
            raise ValueError(f"nothing under {match[1]}")
        if match[2] == "|":
            found[match[1]] = _literal(lines, depth)
        else:
            found[match[1]] = _block(lines) if match[2] is None else _scalar(match[2])
    return found


def _literal(lines: Lines, depth: int) -> str:
    inside: Lines = []
    while lines and lines[0][0] > depth:
        inside.append(lines.pop(0))
    if not inside:
        raise ValueError("nothing under |")
    return "".join(f"{' ' * (each - inside[0][0])}{text}\n" for each, text in inside)


def _scalar(text: str) -> Any:
    if text.lower() in {"yes", "no", "on", "off", "null", "~"}:
        raise ValueError(f"{text} means something else to every reader")
    if text[0] in '["' or text in {"true", "false"} or re.fullmatch(r"0|[1-9][0-9]*", text):
        return json.loads(text)
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"not plain: {text}")
    return text


def faults(schema: dict[str, Any], value: Any, root: dict[str, Any] | None = None, at: str = "") -> Iterator[str]:
    """What in the value is not as the schema wants it."""
    root = root or schema
    allowed = schema.get("type", [])
    if allowed and type(value) not in [_TYPES[each] for each in ([allowed] if isinstance(allowed, str) else allowed)]:
        yield f"{at}: not of type {allowed}"
        return
    for word, wanted in schema.items():
        if word in _HOLDS:
            if not _HOLDS[word](value, wanted):
                yield f"{at}: {value!r} against {word} {wanted!r}"
        elif word in _INSIDE:
            yield from _INSIDE[word](schema, value, root, at)
        elif word not in _SAID:
            raise ValueError(f"{word} is more than is known here")


def _keys(schema: dict[str, Any], value: dict[str, Any], root: dict[str, Any], at: str) -> Iterator[str]:
    known = schema["properties"]
    for key, item in value.items():
        if key in known:
            yield from faults(known[key], item, root, f"{at}/{key}")
        elif not schema.get("additionalProperties", True):
            yield f"{at}: {key} is unknown"


def _items(schema: dict[str, Any], value: list[Any], root: dict[str, Any], at: str) -> Iterator[str]:
    for number, item in enumerate(value):
        yield from faults(schema["items"], item, root, f"{at}/{number}")


def _named(schema: dict[str, Any], value: Any, root: dict[str, Any], at: str) -> Iterator[str]:
    yield from faults(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root, at)


def _one(schema: dict[str, Any], value: Any, root: dict[str, Any], at: str) -> Iterator[str]:
    tried = [list(faults(each, value, root, at)) for each in schema["oneOf"]]
    if sum(not found for found in tried) != 1:
        yield from min(tried, key=len) or [f"{at}: more than one of oneOf"]


_INSIDE: dict[str, Callable[[dict[str, Any], Any, dict[str, Any], str], Iterator[str]]] = {
    "properties": _keys,
    "items": _items,
    "$ref": _named,
    "oneOf": _one,
}
_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "const": lambda value, wanted: bool(value == wanted and type(value) is type(wanted)),
    "enum": lambda value, wanted: value in wanted,
    "maximum": lambda value, wanted: bool(value <= wanted),
    "minimum": lambda value, wanted: bool(value >= wanted),
    "minItems": lambda value, wanted: len(value) >= wanted,
    "pattern": lambda value, wanted: re.search(wanted, value) is not None,
    "required": lambda value, wanted: set(wanted) <= value.keys(),
}
_SAID = {"$schema", "title", "type", "$defs", "additionalProperties"}
