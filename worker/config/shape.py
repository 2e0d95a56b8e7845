"""What the models look like from outside: which keys a table knows, for suggestions and for the docs."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from worker.config.fields import Section


def keys(model: type[Section]) -> dict[str, FieldInfo]:
    """The keys of a table as they are written in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def known(model: type[Section], path: tuple[str | int, ...]) -> list[str]:
    """The keys that the table at `path` knows; empty where keys are the author's own."""
    found: Any = model
    for part in path:
        found = _inside(found, part)
    section = section_of(found)
    return list(keys(section)) if section else []


def section_of(annotation: Any) -> type[Section] | None:
    """The model of a table in `Section`, `Section | None`, `dict[…, Section]` or a tuple of them."""
    return next((found for found in _types(annotation) if isinstance(found, type) and issubclass(found, Section)), None)


def _inside(annotation: Any, part: str | int) -> Any:
    """The annotation one step further down; names in a dict and places in a list change nothing."""
    for found in _types(annotation):
        if get_origin(found) in (dict, tuple):
            return get_args(found)[1 if get_origin(found) is dict else 0]
        if isinstance(found, type) and issubclass(found, Section):
            field = keys(found).get(str(part))
            return field.annotation if field else None
    return None


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    if get_origin(annotation) is Annotated:
        yield from _types(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for choice in get_args(annotation):
            yield from _types(choice)
