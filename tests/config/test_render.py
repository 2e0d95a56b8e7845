"""What the configuration shows of itself; never a secret."""

import json
from pathlib import Path

import pytest

from tests.config.support import URL, faults, loaded
from worker.config import Config, config_schema, load, render, secret_values
from worker.config.redaction import mask, secret_name

CANARIES = ("canary-db", "canary-direct", "canary-header", "canary-setting", "Y2FuYXJ5LXNpZ25pbmc=", "c" * 64)

TEXT = f"""\
[database]
url = "postgresql://user:canary-db@h/d"
direct_url = "postgresql://user:$DIRECT@h/d"
[[http.keys]]
name = "admin"
sha256 = "{"c" * 64}"
scopes = ["read"]
[job.a]
http = "https://x.test/"
headers = {{ Authorization = "Bearer canary-header" }}
secrets = ["whsec_Y2FuYXJ5LXNpZ25pbmc="]
body = {{ key = "canary-setting" }}
coalesce = {{ key = "cache" }}
retry = {{ max = "1m" }}
[job.b]
python = "m:f"
settings = {{ inner = {{ sms_token = "canary-setting" }}, list = ["amqp://u:canary-setting@h"], unique_key = "shown" }}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return loaded(tmp_path, TEXT, {"DIRECT": "canary-direct"})


def test_secrets_are_never_shown(config: Config) -> None:
    shown = [repr(config.database), str(config.http), repr(config.job["a"]), json.dumps(render(config))]
    assert [canary for canary in CANARIES for text in shown if canary in text] == []
    assert "canary" not in json.dumps(config.declarations())


def test_render(config: Config) -> None:
    shown = render(config)
    assert shown["database"] == {"url": "***", "direct_url": "***", "steps": 8, "search_path": "public"}
    assert shown["worker"]["poll"] == "5s"
    assert shown["retry"] == {"max_attempts": 5, "first": "2s", "factor": 2.0, "max": "10m"}
    assert shown["job"]["a"]["retry"]["max"] == "1m"
    assert shown["job"]["a"]["coalesce"]["key"] == "cache"
    assert shown["job"]["a"]["headers"] == {"Authorization": "***"}
    assert shown["job"]["b"]["settings"] == {
        "inner": {"sms_token": "***"},
        "list": ["amqp://u:***@h"],
        "unique_key": "shown",
    }


def test_secret_values_for_the_log(config: Config) -> None:
    values = secret_values(config)
    assert {"canary-db", "canary-direct", "canary-header", "whsec_Y2FuYXJ5LXNpZ25pbmc=", "c" * 64} <= values


def test_faults_do_not_show_secrets(tmp_path: Path) -> None:
    text = (
        TEXT.replace("postgresql", "mysql").replace("canary-header", "canary-header\\u0001").replace("cccc", "CANARY")
    )
    found = faults(tmp_path, text.replace("whsec_", "canary "), {"DIRECT": "canary-direct"})
    assert len(found) == 5
    assert [fault for fault in found if "canary" in fault.lower()] == []


def test_schema_serves_editors() -> None:
    schema = config_schema()
    assert schema["required"] == ["environment"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Worker"]["properties"]["poll"]["default"] == "5s"
    json.dumps(schema)


def test_what_is_rendered_can_be_loaded_again(tmp_path: Path) -> None:
    shown = render(load(Path(__file__).parents[2] / "worker.toml", {"DATABASE_URL": "postgresql://h/d"}))
    assert Config.model_validate(shown | {"database": {}}).job["stats_update"].unique_key == "stats"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True), ("DB_PASSWORD", True), ("clientSecret", True), ("secrets", True), ("access_token", True),
        ("Authorization", True), ("key", True), ("apiKey", True), ("X-Api-Key", True), ("internal_api_key", True),
        ("unique_key", False), ("concurrency_key", False), ("tokenizer", False), ("keys", False), ("secretary", False),
        ("job_id", False), ("", False),
    ],
)  # fmt: skip
def test_secret_name(name: str, secret: bool) -> None:
    assert secret_name(name) is secret


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("to postgresql://u:p@h:5/d failed", "to postgresql://u:***@h:5/d failed"),
        ("postgresql://u:p@ss:w@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:p@h", "postgresql://:***@h"),
        ("http://h:80/a@b", "http://h:80/a@b"),
        ("user=u password=p host=h", "user=u password=*** host=h"),
        ("{'password': 'a b', 'x': 1}", "{'password': ***, 'x': 1}"),
        ("api_key: abc, x", "api_key: ***, x"),
        ("Authorization: Bearer abcd.efg", "Authorization: Bearer ***"),
        ("a key=value pair of no secret", "a key=value pair of no secret"),
    ],
)
def test_mask(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_what_the_query_of_an_address_says_is_not_shown(tmp_path: Path) -> None:
    jobs = '[job.a]\nhttp = "https://h/x?format=json&api_key=$K"\nfallback = "https://h/y"'
    config = loaded(tmp_path, jobs, {**URL, "K": "canary-of-a-key"})
    shown = render(config)["job"]["a"]
    assert (shown["http"], shown["fallback"]) == ("https://h/x?***", "https://h/y")
    assert "canary-of-a-key" in secret_values(config)
    assert "json" not in secret_values(config)
