"""Where each key of a TOML document stands, so that a fault can name its line.

tomllib gives values without lines. This reader walks the same text a second time and only for keys; tomllib has
accepted the document before, so nothing is checked here.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""(?P<text>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*')"""
    r"""|(?P<comment>\#[^\n]*)|(?P<mark>[][{}=,.\n])|(?P<word>[^][{}=,.\s\#"']+)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int

    def key(self) -> str:
        """The key that this token spells, quoted or bare."""
        return str(tomllib.loads(f"k = {self.text}")["k"]) if self.kind == "text" else self.text


def locate(document: str) -> dict[Path, int]:
    """The line, counted from 1, of each table, key and list item of a valid TOML document."""
    return _Reader(document).read()


def _tokens(document: str) -> Iterator[_Token]:
    line, seen = 1, 0
    for match in _TOKEN.finditer(document):
        line += document.count("\n", seen, match.start())
        seen = match.start()
        if match.lastgroup != "comment":
            yield _Token(match.lastgroup or "", match[0], line)


class _Reader:
    def __init__(self, document: str) -> None:
        self._tokens = [*_tokens(document), _Token("mark", "\n", 0)]
        self._at = 0
        self._found: dict[Path, int] = {}
        self._lists: dict[Path, int] = {}  # path of an array of tables → index of its last table

    def read(self) -> dict[Path, int]:
        table: Path = ()
        while self._at < len(self._tokens):
            if self._skip("\n"):
                continue
            if self._sees("["):
                table = self._header()
            else:
                self._pair(table)
        return self._found

    def _header(self) -> Path:
        self._skip("[")
        many = self._skip("[")
        path: Path = ()
        keys = self._keys()
        for depth, (key, line) in enumerate(keys, 1):
            path = (*path, key)
            self._note(path, line)
            if many and depth == len(keys):
                self._lists[path] = self._lists.get(path, -1) + 1
            if path in self._lists:
                path = (*path, self._lists[path])
                self._note(path, line)
        while self._skip("]"):
            pass
        return path

    def _pair(self, table: Path) -> None:
        path = table
        for key, line in self._keys():
            path = (*path, key)
            self._note(path, line)
        self._skip("=")
        self._value(path)

    def _keys(self) -> list[tuple[str, int]]:
        keys = [self._key()]
        while self._skip("."):
            keys.append(self._key())
        return keys

    def _key(self) -> tuple[str, int]:
        token = self._next()
        return token.key(), token.line

    def _value(self, path: Path) -> None:
        if self._skip("["):
            self._items(path)
        elif self._skip("{"):
            self._inline(path)
        else:
            while not self._sees(",", "]", "}", "\n"):
                self._next()

    def _items(self, path: Path) -> None:
        index = 0
        while not self._skip("]"):
            if self._skip(",", "\n"):
                continue
            self._note((*path, index), self._tokens[self._at].line)
            self._value((*path, index))
            index += 1

    def _inline(self, path: Path) -> None:
        while not self._skip("}"):
            if not self._skip(",", "\n"):
                self._pair(path)

    def _note(self, path: Path, line: int) -> None:
        self._found.setdefault(path, line)

    def _sees(self, *marks: str) -> bool:
        token = self._tokens[self._at]
        return token.kind == "mark" and token.text in marks

    def _skip(self, *marks: str) -> bool:
        seen = self._sees(*marks)
        self._at += seen
        return seen

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token
