"""What `load` makes of a right file, and what it takes from the environment."""

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.config.support import URL, loaded, written
from worker.config import load
from worker.retry import Retry

ROOT = Path(__file__).parents[2]
SHA = "a" * 64
KEYS = f'[[http.keys]]\nname = "admin"\nsha256 = "{SHA}"\nscopes = ["read"]\n'

STATS_TAGS = {
    "season_stats", "half_season_stats", "all_time_stats", "hall_of_fame", "recent_performance", "honour_roll",
    "match_report", "personal_bests", "player_profile_stats", "season_race_data", "player_power_rating",
}  # fmt: skip

CONTRACT = """\
[database]
url = "$DATABASE_URL"
steps = 8
[worker]
keep = { completed = "7d", skipped = "3d", failed = "30d", cancelled = "7d" }
wake = "poll"
[http]
[[http.keys]]
name = "admin"
sha256 = "$ADMIN_KEY_SHA256"
scopes = ["read", "enqueue", "operate"]
[retry]
max_attempts = 7
first = "3s"
[job.stats_update]
deadline = "1h"
parallel = 4
unique_key = "stats"
concurrency_key = "stats:{tenant_id}"
arguments = { target_tenant_id = "tenant_id" }
sources = { match = true, admin = false }
then = ["invalidate_cache"]
fallback = "$APP_URL/old"
[job.stats_update.steps]
all_time = { sql = "update_all_time", tags = ["all_time_stats"] }
hall_of_fame = { sql = "club.update_hall", needs = ["all_time"], timeout = "2m", optional = true }
[job.invalidate_cache]
http = "$APP_URL/api/internal/cache/invalidate"
headers = { Authorization = "Bearer $INTERNAL_API_KEY" }
body = { tags = "{tags}", source = "worker", requestId = "{correlation_id}" }
coalesce = { key = "cache", unite = ["tags"] }
partial = { status = 207, failed = "failed_tags", into = "tags" }
retry = { max_attempts = 1000, max = "1m" }
deadline = "24h"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
allow = ["169.254.169.254"]
[job.reminder_24h]
python = "worker.jobs.auto_sync:reminder"
settings = { after = "24h", pause_after = "48h", sms = "twilio" }
producers = ["app", "tenant"]
rate = { limit = 5, per = "10m", key = "{user_id}" }
backlog = { max = 100, then = "refuse" }
expires = "2d"
log = "each"
[rate.lichess]
limit = 30
per = "1m"
[schedule.nightly_stats]
cron = "0 2 * * *"
zone = "UTC"
job = "stats_update"
for_each = "club.active_tenants"
missed = "last"
"""
ENVIRON = {
    **URL,
    "ADMIN_KEY_SHA256": SHA,
    "APP_URL": "https://app.test",
    "INTERNAL_API_KEY": "in$ternal-{key}",
}


def test_shipped_file() -> None:
    config = load(ROOT / "worker.toml", URL)
    job = config.job["stats_update"]
    assert job.graph is not None
    assert len(job.graph) == 10
    tags = [tag for step in job.graph.steps.values() for tag in step.tags]
    assert len(tags) == 11
    assert set(tags) == STATS_TAGS
    assert (job.kind, job.parallel, job.arguments) == ("steps", 2, {"target_tenant_id": "tenant_id"})
    assert config.database.search_path == "club, public"
    assert config.warnings == ()
    assert config.path == ROOT / "worker.toml"


def test_contract(tmp_path: Path) -> None:
    config = loaded(tmp_path, CONTRACT, ENVIRON)
    stats, cache, reminder = (config.job[name] for name in ("stats_update", "invalidate_cache", "reminder_24h"))
    assert [job.kind for job in config.job.values()] == ["steps", "http", "python"]
    assert (config.environment, config.database.steps, config.worker.wake) == ("test", 8, "poll")
    assert (config.worker.poll, config.worker.beat, config.worker.keep.failed) == (5.0, 0.5, 2_592_000.0)
    assert config.retry == Retry(7, 3.0, 2.0, 600.0)
    assert stats.retry == config.retry
    assert cache.retry == Retry(1000, 3.0, 2.0, 60.0)
    assert (stats.timeout, stats.deadline, stats.then, stats.name) == (
        300.0,
        3600.0,
        ("invalidate_cache",),
        "stats_update",
    )
    assert stats.graph is not None
    assert stats.graph.steps["hall_of_fame"].timeout == 120.0
    assert (cache.http, stats.fallback) == ("https://app.test/api/internal/cache/invalidate", "https://app.test/old")
    assert cache.headers["Authorization"].get_secret_value() == "Bearer in$ternal-{key}"
    assert cache.body == {"tags": "{tags}", "source": "worker", "requestId": "{correlation_id}"}
    assert cache.allow == ("169.254.169.254/32",)
    assert reminder.settings == {"after": "24h", "pause_after": "48h", "sms": "twilio"}
    assert reminder.graph is None
    assert (config.rate["lichess"].limit, config.rate["lichess"].per) == (30, 60.0)
    assert config.schedule["nightly_stats"].for_each == "club.active_tenants"
    assert config.http is not None
    assert (config.http.host, config.http.port, config.http.loopback) == ("127.0.0.1", 9464, True)


def test_declaration(tmp_path: Path) -> None:
    config = loaded(tmp_path, CONTRACT, ENVIRON)
    declared = config.job["reminder_24h"].declaration()
    digest = declared.pop("digest")
    assert declared == {
        "name": "reminder_24h",
        "priority": 100,
        "max_attempts": 7,
        "unique_key": None,
        "unique_while": "waiting",
        "on_conflict": "keep",
        "concurrency_key": None,
        "limit": None,
        "rate": {"limit": 5, "per": 600.0, "key": "{user_id}"},
        "backlog": {"max": 100, "then": "refuse"},
        "producers": ["app", "tenant"],
        "sources": {},
        "enabled": True,
        "expires": 172_800.0,
        "deadline": None,
        "audit": False,
        "fair": False,
        "coalesce_key": None,
        "then": [],
        "then_failed": [],
        "announces": None,
        "fallback": False,
    }
    canonical = json.dumps(declared, sort_keys=True, separators=(",", ":"))
    assert digest == hashlib.sha256(canonical.encode()).hexdigest()
    assert [one["name"] for one in config.declarations()] == list(config.job)


def test_digest_changes_with_what_sql_knows_only(tmp_path: Path) -> None:
    def digest(more: str) -> str:
        return str(loaded(tmp_path, f'[job.a]\npython = "m:f"\n{more}').job["a"].declaration()["digest"])

    assert digest("") == digest('timeout = "1m"') == digest("priority = 100")
    assert digest("") != digest("priority = 99")
    assert digest("") != digest("retry = { max_attempts = 4 }")


def test_database_url_of_the_environment_wins_as_it_is(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[database]\nurl = "postgresql://file@h/d"', {"DATABASE_URL": "postgres://u:p$x$$@h/d"})
    assert config.database.url is not None
    assert config.database.url.get_secret_value() == "postgres://u:p$x$$@h/d"


def test_dollars_in_the_file(tmp_path: Path) -> None:
    text = '[database]\nurl = "postgresql://u:$PW$$x@h/d"\n[job.a]\npython = "m:f"\nsettings = { price = "$5" }'
    config = loaded(tmp_path, text, {"PW": "a$b"})
    assert config.database.url is not None
    assert config.database.url.get_secret_value() == "postgresql://u:a$b$x@h/d"
    assert config.job["a"].settings == {"price": "$5"}


def test_port_of_the_environment_wins(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[http]\nlisten = "127.0.0.1:1"\n' + KEYS, {**URL, "PORT": "8080"})
    assert config.http is not None
    assert (config.http.host, config.http.port, config.http.loopback) == ("0.0.0.0", 8080, False)


@pytest.mark.parametrize("listen", ["localhost:0", "[::1]:9464", "127.9.9.9:80"])
def test_loopback_needs_no_keys(listen: str, tmp_path: Path) -> None:
    config = loaded(tmp_path, f'[http]\nlisten = "{listen}"')
    assert config.http is not None
    assert config.http.loopback


def test_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "worker.toml").write_bytes(b'\xef\xbb\xbfenvironment = "test"\r\n')
    assert load(tmp_path / "worker.toml", URL).environment == "test"


def test_nothing_changes_after_loading(tmp_path: Path) -> None:
    config = loaded(tmp_path, CONTRACT, ENVIRON)
    with pytest.raises(ValidationError):
        config.environment = "other"
    with pytest.raises(ValidationError):
        config.job["stats_update"].priority = 1


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        ("", {"PORT": "80"}, "1: http: PORT is set, but without [http] nothing listens"),
        ("[worker]\nconcurrency = 1", {}, "2: worker.prefetch: jobs claimed far ahead"),
        (
            '[database]\nsteps = 3\n[job.a]\nparallel = 4\nsteps = { s = { sql = "f" } }',
            {},
            "5: job.a.parallel: more than the 3 connections of database.steps",
        ),
        ('[job.a]\npython = "m:f"\ndeadline = "1m"', {}, "2: job.a.timeout: longer than the deadline"),
        ('[job.a]\npython = "m:f"\nretry = { max = "1s" }', {}, "4: job.a.retry: first is longer than max"),
        ('[job.a]\nhttp = "http://x/"\nheaders = { A = "{id}" }', {}, "4: job.a.headers.A: placeholders do not count"),
    ],
)
def test_warnings(text: str, environ: dict[str, str], expected: str, tmp_path: Path) -> None:
    [warning] = loaded(tmp_path, text, {**URL, **environ}).warnings
    assert f"worker.toml:{expected}" in warning


SECRET = "whsec_" + "A" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[database]\ndirect_url = "postgresql://u:hunter22@h/d"', "3: database.direct_url"),
        (f'[job.a]\nhttp = "http://x/"\nsecrets = ["{SECRET}"]', "4: job.a.secrets[0]"),
        (
            '[job.a]\nhttp = "http://x/"\nheaders = { Authorization = "Bearer hunter22" }',
            "4: job.a.headers.Authorization",
        ),
        ('[job.a]\npython = "m:f"\nsettings = { a = { api_key = "hunter22" } }', "4: job.a.settings.a.api_key"),
    ],
)
def test_a_secret_that_everybody_can_read_is_warned_of(text: str, expected: str, tmp_path: Path) -> None:
    path = written(tmp_path, f'environment = "test"\n{text}')
    path.chmod(0o644)
    (warning,) = load(path, URL).warnings
    assert f"worker.toml:{expected}: everybody on this machine can read it" in warning
    assert not {"hunter22", SECRET} & set(warning.replace('"', " ").split())
    path.chmod(0o640)
    assert load(path, URL).warnings == ()


def test_what_the_environment_holds_may_be_read_by_all(tmp_path: Path) -> None:
    given = {"URL": "postgresql://u:hunter22@h/d", "KEY": "hunter22", "SECRET": SECRET}
    text = 'environment = "test"\n[database]\nurl = "$URL"\n[job.a]\nhttp = "http://x/"\nsecrets = ["$SECRET"]\n'
    path = written(tmp_path, text + 'headers = { Authorization = "Bearer $KEY", X-Source = "worker" }\n')
    path.chmod(0o644)
    assert load(path, given).warnings == ()
