"""JSON whose whole numbers are exact, however long.

orjson reads those beyond 64 bits as floats and does not write them at all; Postgres keeps every digit.
"""

import json
import re
from collections.abc import Callable
from math import isinf
from typing import Any

import orjson

# So many digits in a row may be beyond 64 bits. Inside a text they only cost the slower reader.
_LONG = 19
_DIGIT = re.compile(r"[0-9]")
_NOUGHTS = bytes(ord("0") if chr(byte) in "0123456789" else ord(" ") for byte in range(256))
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
_DIGITS = 4_300  # of a whole number that Python reads and writes

Read = Callable[[str], Any]


def loads(text: str) -> Any:
    """A JSON text, decoded.

    Raises:
        ValueError: it is no JSON; or JSON that Python does not read: nested too deep, a number too long.
    """
    return _read(text, _whole, _fraction)


def readable(text: str) -> Any:
    """As `loads`, for eyes: a number too long for Python stays the text that it is."""
    return _read(text, _or_text(_whole), _or_text(_fraction))


def dumps(value: Any, default: Callable[[Any], Any] | None = None, option: int = 0) -> bytes:
    """A value as JSON, as orjson writes it, and whole numbers of any length.

    Raises:
        TypeError, ValueError, RecursionError: it cannot be written.
    """
    try:
        return orjson.dumps(value, default=default, option=option)
    except TypeError as error:
        if "64-bit" not in str(error):  # orjson has one type for all its errors
            raise
        return orjson.dumps(_spelt(value), default=default, option=option)


def _read(text: str, whole: Read, fraction: Read) -> Any:
    if not _has_long(text):
        return orjson.loads(text)
    try:
        return json.loads(text, parse_int=whole, parse_float=fraction)
    except RecursionError:
        raise ValueError("recursion depth exceeded") from None


def _has_long(text: str) -> bool:
    """Whether so many digits stand in a row: an expression that says so takes ten times as long as all the reading."""
    if _DIGIT.search(text[_LONG - 1 :: _LONG]) is None:  # each row of so many has one of these places
        return False
    return b"0" * _LONG in text.encode(errors="replace").translate(_NOUGHTS)


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _fraction(digits: str) -> float:
    if isinf(found := float(digits)):
        raise ValueError("a number beyond what a float holds")
    return found


def _or_text(read: Read) -> Read:
    def shown(digits: str) -> Any:
        try:
            return read(digits)
        except ValueError:
            return digits

    return shown


def _spelt(value: Any) -> Any:
    """`value` with its long numbers as the text they are written as."""
    if isinstance(value, dict):
        return {key: _spelt(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(item) for item in value]
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        return orjson.Fragment(str(int(value)))
    return value
