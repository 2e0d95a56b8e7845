"""`$NAME` from the environment, in the few keys where the contract allows it. Pure."""

import re
from collections.abc import Mapping

_DOLLAR = re.compile(r"\$(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<dollar>\$))?")


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`text` with each $NAME replaced and each $$ made one dollar.

    Raises:
        ValueError: names that are not set, all at once, a file that was to give one and cannot be used, or a dollar
            before something that is no name. An empty value counts as not set: an empty key or address is never meant.
    """
    if unset := sorted({name for name in _names(text) if not environ.get(name)}):
        raise ValueError(" and ".join(f"${name}" for name in unset) + " not set in the environment")
    return _DOLLAR.sub(lambda match: environ[match["name"]] if match["name"] else "$", text)


def escape(text: str) -> str:
    """`text` such that `expand` gives it back."""
    return text.replace("$", "$$")


def _names(text: str) -> list[str]:
    matches = list(_DOLLAR.finditer(text))
    if any(match[0] == "$" for match in matches):
        raise ValueError("a lone dollar; write $NAME, or $$ for a dollar")
    return [match["name"] for match in matches if match["name"]]
