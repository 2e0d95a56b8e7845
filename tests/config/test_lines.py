"""The line reader must agree with tomllib on which keys there are, and be right about lines."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.config.lines import locate

DOCUMENT = '''\
# comment = 1
top = 1 # "not a string
"quoted key" = 2
'a.b' = """
x = 1
[no.header]
\\"""
"""
dotted.key."é\\u00e9" = 3

[table] # comment ]
inline = { a = 1, b = { c = [1, { d = "}" }] } }
many = [
  1, # one
  "],",

  { e = 2.5 },
  [[3], []],
]
date = 1979-05-27 07:32:00
[ table . "sub" ]
x = \'\'\'
[[items]]
\'\'\'
[[items]]
name = "a"
[items.inner]
deep = 1
[[items]]
name = "b"
[[items.inner2]]
deep = 2
'''

WANTED = {
    ("top",): 2,
    ("quoted key",): 3,
    ("a.b",): 4,
    ("dotted",): 9,
    ("dotted", "key", "éé"): 9,
    ("table",): 11,
    ("table", "inline", "b", "c", 1, "d"): 12,
    ("table", "many"): 13,
    ("table", "many", 1): 15,
    ("table", "many", 2, "e"): 17,
    ("table", "many", 3, 0, 0): 18,
    ("table", "date"): 20,
    ("table", "sub", "x"): 22,
    ("items", 0, "name"): 26,
    ("items", 0, "inner", "deep"): 28,
    ("items", 1): 29,
    ("items", 1, "name"): 30,
    ("items", 1, "inner2", 0, "deep"): 32,
}


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path, *(found for key, item in inner for found in paths(item, (*path, key)))}


@pytest.mark.parametrize("path", WANTED)
def test_line(path: tuple[str | int, ...]) -> None:
    assert locate(DOCUMENT)[path] == WANTED[path]


def test_every_key_is_found() -> None:
    assert paths(tomllib.loads(DOCUMENT)) - {()} == set(locate(DOCUMENT))


@pytest.mark.parametrize("text", ["a = 1\r\nb = 2\r\n", "a = 1\nb = 2"])
def test_line_ends(text: str) -> None:
    assert locate(text) == {("a",): 1, ("b",): 2}


@given(st.text(alphabet="[]{}=,.\n\"'#ab1 \\"))
def test_agrees_with_tomllib(text: str) -> None:
    try:
        value = tomllib.loads(text)
    except ValueError:
        return
    assert paths(value) - {()} == set(locate(text))
