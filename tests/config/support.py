"""A worker.toml for a test, and what `load` says about it."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.config import Config, load
from worker.errors import ConfigError

URL = {"DATABASE_URL": "postgresql://u:p@localhost/d"}
HEAD = 'environment = "test"\n'


def loaded(folder: Path, text: str, environ: Mapping[str, str] = URL) -> Config:
    """The configuration in `text`; `environment` is there already, on line 1."""
    return load(written(folder, HEAD + textwrap.dedent(text)), environ)


def faults(folder: Path, text: str, environ: Mapping[str, str] = URL) -> list[str]:
    """What is wrong with `text`, `environment` being on line 1; the folder is left out."""
    return faults_of(written(folder, HEAD + textwrap.dedent(text)), environ)


def faults_of(path: Path, environ: Mapping[str, str] = URL) -> list[str]:
    """What is wrong with the file at `path`; its folder is left out."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return [fault.replace(f"{path.parent}/", "") for fault in caught.value.faults]


def written(folder: Path, text: str) -> Path:
    path = folder / "worker.toml"
    path.write_text(text, encoding="utf-8")
    return path
