"""The part of a configuration that the exporter needs: nothing else is read, nothing else is missed."""

from pathlib import Path

import pytest

from tests.config.support import HEAD, URL, written
from worker.config import load_listener
from worker.errors import ConfigError

KEYS = f'[[http.keys]]\nname = "p"\nsha256 = "{"a" * 64}"\nscopes = ["read"]\n'


@pytest.mark.parametrize(
    ("text", "environ", "listen", "found"),
    [
        ("", {}, None, "127.0.0.1:9464"),
        ('[http]\nlisten = "127.0.0.1:1"\n', {}, None, "127.0.0.1:1"),
        ('[http]\nlisten = "127.0.0.1:1"\n', {}, "127.0.0.1:2", "127.0.0.1:2"),
        (KEYS, {"PORT": "3"}, None, "0.0.0.0:3"),
        (KEYS, {"PORT": "3"}, "0.0.0.0:4", "0.0.0.0:4"),
        ("", {"PORT": "3"}, "127.0.0.1:5", "127.0.0.1:5"),
        ('[http]\nsession_secret = "$NOBODY_SETS_IT"\n', {}, None, "127.0.0.1:9464"),
        ('[database]\ndirect_url = "$NOBODY_SETS_IT"\n', {}, None, "127.0.0.1:9464"),
        ('[job.call]\nhttp = "$NOBODY_SETS_IT"\n[worker]\npoll = "nonsense"\n', {}, None, "127.0.0.1:9464"),
    ],
)
def test_where_it_listens(tmp_path: Path, text: str, environ: dict[str, str], listen: str | None, found: str) -> None:
    config = load_listener(written(tmp_path, HEAD + text), URL | environ, listen)
    assert config.http is not None
    assert (config.http.listen, dict(config.job)) == (found, {})


@pytest.mark.parametrize(
    ("text", "environ", "listen", "said"),
    [
        ("", {"PORT": "3"}, None, "beyond loopback only with keys"),
        ("", {}, "0.0.0.0:4", "beyond loopback only with keys"),
        ("", {}, "somewhere", "http.listen"),
        ("http = 5\n", {}, None, "http"),
        ('[[http.keys]]\nname = "p"\nsha256 = "$NOBODY_SETS_IT"\nscopes = ["read"]\n', {}, None, "NOBODY_SETS_IT"),
        ("", {"DATABASE_URL": ""}, None, "database.url"),
    ],
)
def test_its_faults(tmp_path: Path, text: str, environ: dict[str, str], listen: str | None, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_listener(written(tmp_path, HEAD + text), URL | environ, listen)
    assert said in str(caught.value)
