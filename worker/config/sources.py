"""Where `$NAME` comes from: the environment, a file that `NAME_FILE` in it names, or a credential of systemd's."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

MOST_BYTES = 65_536


class Sources(Mapping[str, str]):
    """Names and their values. What comes from a file is read once, and ends where its last line break begins.

    Asking for a name raises ValueError, which says what is wrong and the cure, when its file cannot be used, or when
    the environment has both the value and the name of a file. An empty value counts as none.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._read: dict[Path, str] = {}

    def __getitem__(self, name: str) -> str:
        origin = self.origin(name)
        if origin is None:
            raise KeyError(name)
        path = self._path(name)
        if path is None:
            return self._environ[name]
        if self._environ.get(name):
            raise ValueError(f"{name} and {origin} are both set in the environment; unset one of them")
        if path not in self._read:
            self._read[path] = _content(path, "" if origin == str(path) else f", which {origin} names,")
        return self._read[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)

    def origin(self, name: str) -> str | None:
        """Who gives a name its value: the variable `NAME` or `NAME_FILE`, or the path of a credential; None: nobody."""
        if self._environ.get(f"{name}_FILE"):
            return f"{name}_FILE"
        if self._environ.get(name):
            return name
        credential = self._credential(name)
        return None if credential is None else str(credential)

    def variable(self, name: str) -> str | None:
        """What the environment itself holds."""
        return self._environ.get(name)

    def open_files(self) -> list[Path]:
        """Those of the files read that everybody on this machine can read."""
        return [path for path in self._read if path.stat().st_mode & stat.S_IROTH]

    def _path(self, name: str) -> Path | None:
        if named := self._environ.get(f"{name}_FILE"):
            return Path(named)
        return None if self._environ.get(name) else self._credential(name)

    def _credential(self, name: str) -> Path | None:
        folder = self._environ.get("CREDENTIALS_DIRECTORY")
        path = Path(folder, name) if folder else None
        return path if path is not None and os.path.lexists(path) else None


def _content(path: Path, named: str) -> str:
    where = f"{path}{named}"
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ValueError(f"{where} does not exist; correct the path, or unset it") from None
    except PermissionError:
        raise ValueError(f"{where} cannot be read by this user; chown it to the user that the worker runs as") from None
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"{where} is larger than {MOST_BYTES} bytes; is it the right file?")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8") from None
    if not text:
        raise ValueError(f"{where} is empty; put the value into it")
    return text
