"""Secrets are planted wherever a daemon is told or given some, everything fails, and all it shows is looked through."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.heart import QUICK, until
from tests.processes import Fleet, fleet
from tests.support import ROOT, free_port
from tests.web.support import digest
from worker.demo.receiver import Call, Receiver, Reply

PASSWORD = "canary-p%40ss-word"  # percent-encoded, as it must be in an address
HEADER = "canary-of-the-header-7f3a"
SIGNING = "whsec_" + base64.b64encode(b"canary-that-signs-the-calls").decode()
OLDER = "whsec_" + base64.b64encode(b"canary-that-signed-once").decode()
TOKEN = "canary-of-the-settings"
QUERY = "canary-of-the-query"
ADMIN = "canary-of-the-listener"
PAYLOAD = "canary-of-the-payload"
TEXTS = "canary-of-the-texts"
COLLECTOR = "canary-of-the-collector"
SECRETS = [
    PASSWORD, PASSWORD.replace("%40", "@"), HEADER, SIGNING, SIGNING.removeprefix("whsec_"), OLDER, TOKEN, QUERY, ADMIN,
    digest(ADMIN), "canary-that-signs-the-calls", TEXTS, COLLECTOR,
]  # fmt: skip
ENVIRONMENT = {
    "HEADER_KEY": HEADER, "ADMIN_SHA256": digest(ADMIN), "QUERY_KEY": QUERY,
    "OTEL_TRACES_EXPORTER": "console", "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={COLLECTOR}",
}  # fmt: skip
FILES = {"SIGNING_KEY": SIGNING, "TWILIO_AUTH_TOKEN": TEXTS}
API = ["/api/v1/jobs", "/api/v1/types", "/api/v1/schedules", "/api/v1/stats", "/openapi.json"]
ADMIN_PAGES = ["/admin/types", "/admin/schedules"]
JOBS = f"""
[http]
listen = "127.0.0.1:{{port}}"
keys = [{{{{ name = "admin", sha256 = "$ADMIN_SHA256", scopes = ["read"] }}}}]
[retry]
first = "1ms"
max = "1ms"
max_attempts = 2
[job.call]
http = "{{url}}?key=$QUERY_KEY"
headers = {{{{ Authorization = "Bearer $HEADER_KEY", X-Other = "$HEADER_KEY" }}}}
secrets = ["$SIGNING_KEY", "{OLDER}"]
[job.dead]
http = "http://127.0.0.1:1/?key=$QUERY_KEY"
headers = {{{{ Authorization = "Bearer $HEADER_KEY" }}}}
[job.quoting]
python = "tests.hostile.leaky:quoting"
settings = {{{{ token = "{TOKEN}", deeper = {{{{ api_key = "{TOKEN}" }}}} }}}}
[job.texting]
python = "tests.hostile.leaky:texting"
[job.holding]
python = "tests.hostile.leaky:holding"
settings = {{{{ token = "{TOKEN}" }}}}
[job.lost]
python = "tests.hostile.leaky:lost"
settings = {{{{ token = "{TOKEN}" }}}}
[job.slow]
python = "tests.hostile.leaky:slow"
timeout = "50ms"
[job.row]
arguments = {{{{ word = "word" }}}}
[job.row.steps]
unique = {{{{ sql = "fails_by_key" }}}}
check = {{{{ sql = "fails_by_check" }}}}
deep = {{{{ sql = "fails_deep" }}}}
"""
# The payload's marker is in the DETAIL, the CONTEXT and the statement of each of these errors, not in the message.
STEPS = """
create table seen (word text primary key, n int check (n > 0));
create function fails_by_key(word text) returns void language sql as
  $$ insert into seen values (word), (word) $$;
create function fails_by_check(word text) returns void language sql as
  $$ insert into seen values (word, -1) $$;
create function fails_deep(word text) returns void language plpgsql as
  $$ begin execute format('select 1 / 0, %L', word); end $$;
"""


class Echo(Receiver):
    """Answers 500 with all that it was sent."""

    def _answer(self, call: Call) -> Reply:
        return Reply.json(500, {"you sent": [call.body.decode(), call.path, dict(call.headers)]})


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async with Echo() as serving:
        yield serving


@pytest.fixture
def secret_dsn(dsn: str) -> str:
    if "DATABASE_URL" in os.environ:
        pytest.skip("any password will do for our own server only")
    return dsn.replace("postgres@", f"postgres:{PASSWORD}@", 1)


@pytest.fixture
def daemons(tmp_path: Path, secret_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    for name, value in (ENVIRONMENT | files(tmp_path)).items():
        monkeypatch.setenv(name, value)
    with fleet(tmp_path, secret_dsn) as started:
        yield started


def files(folder: Path) -> dict[str, str]:
    """The variables that name files with secrets in them."""
    for name, value in FILES.items():
        (folder / name.lower()).write_text(f"{value}\n", encoding="utf-8")
        (folder / name.lower()).chmod(0o600)
    return {f"{name}_FILE": str(folder / name.lower()) for name in FILES}


async def said_by(path: Path, where: str, *verb: str, seconds: float = 40) -> str:
    """What a command says, or has said by then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker", *verb, "--config", str(path),
        cwd=ROOT, env={**os.environ, **ENVIRONMENT, **files(path.parent), "DATABASE_URL": where},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    asking = asyncio.ensure_future(process.communicate())
    await asyncio.wait({asking}, timeout=seconds)
    if not asking.done():  # it waits for its database, or for whoever scrapes it
        process.kill()
    said, _ = await asking
    assert said
    return said.decode()


def found(text: str, *canaries: str) -> list[str]:
    """Which of them are in a text, and the line that shows the first."""
    return [f"{each}: {next(line for line in text.splitlines() if each in line)}" for each in canaries if each in text]


def arguments(pid: int) -> list[str]:
    """The command line and the title, where the system shows them; what is in its environment only its user sees."""
    shown = ("cmdline", "comm", "status") if sys.platform == "linux" else ()
    return [Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8") for name in shown]


def pages_of(port: int, jobs: list[int]) -> tuple[list[str], list[str]]:
    """What the API and the pages answer, to whoever has a key and to whoever has none: with payloads, and without."""
    keys = ({"Authorization": f"Bearer {ADMIN}"}, {"Authorization": f"Bearer {ADMIN}x"}, {})
    open_pages = ("/metrics", "/readyz", "/healthz", f"/{ADMIN}")
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        bare = [client.get(f"{page}?key={ADMIN}", headers=key).text for page in open_pages for key in keys]
        api = [client.get(page, headers=key) for page in [*API, *(f"{API[0]}/{job}" for job in jobs)] for key in keys]
        origin = {"Origin": f"http://127.0.0.1:{port}"}
        client.post("/admin/login", data={"key": ADMIN}, headers=origin)
        admin = [client.get(page) for page in ADMIN_PAGES]
        # Errors are shown there as they are on the row: with the DETAIL of Postgres, and what a receiver answered.
        shown = [
            "/admin",
            "/admin/jobs",
            *(f"/admin/jobs/{job}{show}" for job in jobs for show in ("", "?show=payload")),
        ]
        asked = [client.get(page) for page in shown]
    assert {200} == {answer.status_code for answer in [*api[:: len(keys)], *admin, *asked]}
    return [answer.text for answer in [*api, *asked]], [*bare, *(answer.text for answer in admin)]


def written(folder: Path, receiver: Receiver, port: int) -> Path:
    path = folder / "worker.toml"
    text = JOBS.format(url=receiver.url, port=port)
    path.write_text(f'environment = "test"\n[worker]\n{QUICK}\nlog_slow = "0.001s"\n{text}', encoding="utf-8")
    return path


async def test_no_secret_shows_whatever_fails(tmp_path, connection, daemons, echo, secret_dsn):
    await connection.execute(STEPS)
    port = free_port()
    path = written(tmp_path, echo, port)
    daemon = await asyncio.to_thread(daemons.start, path, options=("--verbose",))
    await connection.execute(
        "select worker.enqueue(t, $1::jsonb) from unnest($2::text[]) t",
        json.dumps({"word": PAYLOAD, "password": PAYLOAD}),
        ["call", "dead", "quoting", "texting", "holding", "lost", "slow", "row"],
    )
    await until(connection, "select bool_and(finished_at is not null) from worker.job_queue", seconds=60)
    statements = await connection.fetch("select query from pg_stat_activity where application_name like 'worker %'")
    titles = await connection.fetch("select application_name from pg_stat_activity where datname = current_database()")
    jobs = [id for (id,) in await connection.fetch("select id from worker.job_queue order by id")]
    with_payloads, pages = await asyncio.to_thread(pages_of, port, jobs)
    told = arguments(daemon.pid)
    await connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'worker %'"
    )
    await until(connection, "select count(*) > 2 from pg_stat_activity where application_name like 'worker %'")
    daemon.send(signal.SIGTERM)
    assert await asyncio.to_thread(daemon.ends) == 0
    log = daemon.said()
    assert "job.finished" in log
    assert "answered 500" in log
    assert '"messaging.system": "job_queue_worker"' in log  # the spans are there, too
    shown = [log, *pages, *told, *(each["query"] for each in statements), *(name for (name,) in titles)]
    assert found("\n".join(shown), *SECRETS, PAYLOAD) == []
    assert found("\n".join(with_payloads), *SECRETS) == []

    verbs = ("status",), ("jobs",), ("show", "1"), ("explain", "2"), ("config", "show"), ("check",)
    answers = await asyncio.gather(*(said_by(path, secret_dsn, *verb) for verb in verbs))
    assert found("\n".join(answers), *SECRETS) == []

    rows = await connection.fetch("select job_type, errors::text from worker.job_queue")
    steps = await connection.fetch("select error from worker.job_step")
    kept = "\n".join([*(row["errors"] or "" for row in rows), *(step["error"] or "" for step in steps)])
    assert found(kept, *SECRETS) == []
    errors = {row["job_type"]: row["errors"] or "" for row in rows}
    assert "cannot log in with ***" in errors["quoting"]
    assert "the provider refuses ***" in errors["texting"]
    assert "you sent" in errors["call"]  # the receiver's words are on the row, without what is secret
    assert all(errors[job_type] for job_type in ("call", "dead", "quoting", "holding", "slow", "row"))


@pytest.mark.parametrize(
    ("verb", "spoilt"),
    [
        (("run",), "?host=127.0.0.1&port=1"),  # waits for the database
        (("run",), "no-such-database"),
        (("check",), "no-such-database"),
        (("status",), "?host=127.0.0.1&port=1"),
        (("exporter",), "?host=127.0.0.1&port=1"),
        (("exporter",), "no-such-database"),
        (("migrate",), "no-such-database"),
        (("config", "show"), ""),
        (("check",), ""),
        (("run",), "worker.toml"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
async def test_no_secret_shows_where_it_does_not_even_start(tmp_path, secret_dsn, verb, spoilt):
    path, where = written(tmp_path, Receiver(), free_port()), secret_dsn
    if spoilt == "worker.toml":
        text = path.read_text(encoding="utf-8").replace("$HEADER_KEY", "$HEADER_KEY\\r\\n").replace('"50ms"', "50")
        path.write_text(text.replace("$SIGNING_KEY", f"!{SIGNING}").replace("$ADMIN_SHA256", ADMIN), encoding="utf-8")
    elif spoilt.startswith("?"):
        where = secret_dsn.partition("?")[0] + spoilt
    elif spoilt:
        head, _, host = secret_dsn.partition("?")
        where = f"{head.rpartition('/')[0]}/{spoilt}?{host}"
    said = await said_by(
        path, where, *verb, seconds=6 if spoilt.startswith("?") and verb[0] in ("run", "exporter") else 40
    )
    assert found(said, *SECRETS) == []
