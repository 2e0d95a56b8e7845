"""Secrets from files: NAME_FILE in the environment, and systemd's credentials."""

from pathlib import Path

import pytest

import worker
from tests.config.support import faults, loaded
from worker import log
from worker.config.sources import Sources

CALL = '[job.a]\nhttp = "http://h/"\n'
KEYED = CALL + 'headers = { Authorization = "Bearer $KEY" }\n'
ADDRESS = "postgresql://u:p%24$x@localhost/d"


def kept(folder: Path, name: str, content: str | bytes, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def header(config: worker.config.Config) -> str:
    return config.job["a"].headers["Authorization"].get_secret_value()


@pytest.mark.parametrize("content", ["s3cret", "s3cret\n", "s3cret\r\n"])
def test_a_file_that_the_environment_names(tmp_path: Path, content: str) -> None:
    environ = {"KEY_FILE": str(kept(tmp_path, "key", content)), "DATABASE_URL": ADDRESS}
    assert header(loaded(tmp_path, KEYED, environ)) == "Bearer s3cret"


def test_a_credential_of_systemds(tmp_path: Path) -> None:
    kept(tmp_path, "KEY", "s3cret\n")
    kept(tmp_path, "DATABASE_URL", ADDRESS)
    config = loaded(tmp_path, KEYED, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert header(config) == "Bearer s3cret"
    assert config.database.url is not None
    assert config.database.url.get_secret_value() == ADDRESS


def test_the_address_of_the_database_wins_from_a_file_too(tmp_path: Path) -> None:
    environ = {"DATABASE_URL_FILE": str(kept(tmp_path, "url", f"{ADDRESS}\n"))}
    config = loaded(tmp_path, '[database]\nurl = "postgresql://other/d"', environ)
    assert config.database.url is not None
    assert config.database.url.get_secret_value() == ADDRESS


def test_the_environment_comes_before_a_credential_and_what_is_empty_does_not_count(tmp_path: Path) -> None:
    kept(tmp_path, "KEY", "of the file")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "KEY": "of the environment", "DATABASE_URL": ADDRESS}
    assert header(loaded(tmp_path, KEYED, environ)) == "Bearer of the environment"
    assert header(loaded(tmp_path, KEYED, {**environ, "KEY": ""})) == "Bearer of the file"
    assert header(loaded(tmp_path, KEYED, {**environ, "KEY_FILE": ""})) == "Bearer of the environment"


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0, "does not exist; correct the path, or unset it"),
        ("", 0o600, "is empty; put the value into it"),
        ("\n", 0o600, "is empty; put the value into it"),
        (b"\xff\xfe", 0o600, "is not UTF-8"),
        ("x" * 70_000, 0o600, "is larger than 65536 bytes; is it the right file?"),
        ("a folder", 0, "cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_fault_with_file_line_key_and_cure(tmp_path, content, mode, says) -> None:
    path = tmp_path / "key"
    if content == "a folder":
        path.mkdir()
    elif content is not None:
        kept(tmp_path, "key", content, mode)
    environ = {"KEY_FILE": str(path), "DATABASE_URL": ADDRESS}
    said = f"worker.toml:4: job.a.headers.Authorization: key, which KEY_FILE names, {says}"
    assert faults(tmp_path, KEYED, environ) == [said]
    assert faults(tmp_path, "", {"DATABASE_URL_FILE": str(path)}) == [
        f"environment DATABASE_URL_FILE: database.url: key, which DATABASE_URL_FILE names, {says}"
    ]


def test_another_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> object:
        raise PermissionError(13, "Permission denied")

    path = kept(tmp_path, "KEY", "x")
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ValueError, match="cannot be read by this user; chown it"):
        Sources({"CREDENTIALS_DIRECTORY": str(tmp_path)})["KEY"]
    with pytest.raises(ValueError, match=f"{path}, which X_FILE names, cannot be read by this user"):
        Sources({"X_FILE": str(path)})["X"]


def test_both_is_a_fault(tmp_path: Path) -> None:
    path = str(kept(tmp_path, "key", "x"))
    both = "are both set in the environment; unset one of them"
    assert faults(tmp_path, KEYED, {"KEY": "y", "KEY_FILE": path, "DATABASE_URL": ADDRESS}) == [
        f"worker.toml:4: job.a.headers.Authorization: KEY and KEY_FILE {both}"
    ]
    assert faults(tmp_path, "", {"DATABASE_URL": ADDRESS, "DATABASE_URL_FILE": path}) == [
        f"environment DATABASE_URL_FILE: database.url: DATABASE_URL and DATABASE_URL_FILE {both}"
    ]


def test_what_is_in_a_file_is_checked_and_not_shown(tmp_path: Path) -> None:
    environ = {"DATABASE_URL_FILE": str(kept(tmp_path, "url", "mysql://secret-of-mine"))}
    (fault,) = faults(tmp_path, "", environ)
    assert fault == "environment DATABASE_URL_FILE: database.url: must begin with postgresql://"


def test_a_file_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    path = kept(tmp_path, "key", "s3cret", 0o644)
    config = loaded(tmp_path, KEYED, {"KEY_FILE": str(path), "DATABASE_URL": ADDRESS})
    assert config.warnings == (f"environment {path}: everybody on this machine can read it: chmod o-r",)
    path.chmod(0o640)
    assert loaded(tmp_path, KEYED, {"KEY_FILE": str(path), "DATABASE_URL": ADDRESS}).warnings == ()


def test_files_of_names_that_nobody_uses_are_not_read(tmp_path: Path) -> None:
    environ = {"OTHER_FILE": "/does/not/exist", "PORT_FILE": "/does/not/exist", "DATABASE_URL": ADDRESS}
    assert loaded(tmp_path, CALL, environ).warnings == ()


def test_handlers_take_theirs_from_the_same_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept(tmp_path, "key", "first-of-the-file\n")
    monkeypatch.setenv("MY_KEY_FILE", str(path))
    assert worker.secret("MY_KEY") == "first-of-the-file"
    assert log.starred("a first-of-the-file b") == "a *** b"
    path.write_text("second-of-the-file", encoding="utf-8")
    assert worker.secret("MY_KEY") == "second-of-the-file"
    assert worker.secret("NO_SUCH_KEY") is None
