"""JSON whose whole numbers keep their digits, in and out."""

import json
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import exact

LONG = "12345678901234567890123"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_what_is_written_is_read_again(value):
    text = exact.dumps(value).decode()
    assert (exact.loads(text), json.loads(text)) == (value, value)


@pytest.mark.parametrize(
    "number",
    [LONG, f"-{LONG}", "18446744073709551615", "18446744073709551616", "-9223372036854775809", "1" + "0" * 400],
)
def test_every_digit_is_kept(number):
    assert exact.loads(f'{{"n": [{number}]}}') == {"n": [int(number)]}
    assert exact.dumps({"n": (int(number),)}) == f'{{"n":[{number}]}}'.encode()


@given(st.text("0x9é\ud800", max_size=90), st.integers(0, 25), st.text("5 ٣", max_size=40))
def test_a_row_of_digits_is_seen_wherever_it_begins(before, digits, after):
    text = before + "7" * digits + after
    assert exact._has_long(text) == (re.search("[0-9]{19}", text) is not None)


def test_fractions_are_floats_beside_long_numbers_too():
    assert exact.loads(f"[{LONG}, 0.5, 1e3, 0.{LONG}]") == [int(LONG), 0.5, 1000.0, 0.12345678901234568]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("9" * 5_000, "a number of 5000 digits"),
        ("9" * 400 + ".5", "beyond what a float holds"),
        ("[" * 50_000 + LONG + "]" * 50_000, "depth"),
        (f"[{LONG}", "delimiter"),
        ("[", "unexpected end"),
    ],
)
def test_what_python_does_not_read_is_an_error_of_one_kind(text, says):
    with pytest.raises(ValueError, match=says):
        exact.loads(text)


def test_for_eyes_a_number_too_long_stays_text():
    text = f'{{"a": {"9" * 5_000}, "b": {"9" * 400}.5, "c": {LONG}}}'
    assert exact.readable(text) == {"a": "9" * 5_000, "b": "9" * 400 + ".5", "c": int(LONG)}


def test_options_count_beside_long_numbers_too():
    assert exact.dumps({"b": 2**64, "a": {1}}, default=list, option=orjson.OPT_SORT_KEYS) == (
        b'{"a":[1],"b":18446744073709551616}'
    )
    with pytest.raises(TypeError, match="not JSON serializable"):
        exact.dumps([2**64, object()])
