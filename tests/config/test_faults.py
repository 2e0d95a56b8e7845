"""Each kind of fault, with its line, its key and a cure."""

from pathlib import Path

import pytest

from tests.config.support import URL, faults, faults_of, written
from worker.config import load

JOB = '[job.a]\npython = "m:f"\n'  # lines 2 and 3
CALL = '[job.a]\nhttp = "https://x.test/"\n'
STEP = '[job.a.steps]\ns = { sql = "f" }\n'

DURATION = 'must be a duration such as "500ms", "30s", "5m", "24h" or "7d"'
NAME = "must be a name of the form ^[a-z][a-z0-9_]{0,62}$"
FUNCTION = 'must be the plain name of a function, "f" or "schema.f", in lower case'
ADDRESS = "must be a whole http:// or https:// address; placeholders do not count here"
DIGEST = "must be the sha256 of the key: 64 lower-case hexadecimal digits"
KEYS = '[http]\nkeys = [{ name = "n", sha256 = "%s", scopes = ["read"] }]\n'
DAILY = '[schedule.s]\njob = "a"\ncron = "0 2 * * *"\n' + JOB

CASES = {
    # what TOML and the models see
    "unknown key": (JOB + "parrallel = 2", "4: job.a.parrallel: unknown key; did you mean parallel?"),
    "unknown section": ("[jobs.a]", "2: jobs: unknown key; did you mean job?"),
    "nothing like it": ("[worker]\nzzz = 1", "3: worker.zzz: unknown key; known here: beat, concurrency,"),
    "name is no key": (JOB + 'name = "a"', "4: job.a.name: unknown key"),
    "private is no key": (JOB + "_name = 1", "4: job.a._name: unknown key"),
    "python name of an alias": ("retry_keys = {}", "2: retry_keys: unknown key"),
    "key under its steps": (
        STEP + 'then = ["b"]',
        "4: job.a.steps.then: must be a table; then is a key of the job, so",
    ),
    "wrong table": ("worker = 1", "2: worker: must be a table (got 1)"),
    "wrong text": ("[database]\nsearch_path = 1", "3: database.search_path: must be a text (got 1)"),
    "wrong number": ('[worker]\nconcurrency = "x"', "3: worker.concurrency: must be a whole number"),
    "true is no number": ("[worker]\nconcurrency = true", "3: worker.concurrency: must be a whole number"),
    "wrong switch": ('[worker]\nenabled = "yes"', "3: worker.enabled: must be true or false"),
    "wrong list": (JOB + 'then = "b"', "4: job.a.then: must be a list"),
    "too small": ("[worker]\nconcurrency = 0", "3: worker.concurrency: must be at least 1 (got 0)"),
    "priority": (JOB + "priority = 1001", "4: job.a.priority: must be at most 1000 (got 1001)"),
    "attempts": (JOB + "retry = { max_attempts = 0 }", "4: job.a.retry.max_attempts: must be at least 1 (got 0)"),
    "factor": ("[retry]\nfactor = nan", "3: retry.factor: must be"),
    "duration": ('[worker]\npoll = "5 s"', f"3: worker.poll: {DURATION}"),
    "number is no duration": ("[worker]\npoll = 5", f"3: worker.poll: {DURATION} (got 5)"),
    "no time at all": ('[worker]\npoll = "0s"', "3: worker.poll: must be more than 0"),
    "too long": (JOB + 'timeout = "3651d"', '4: job.a.timeout: must not be longer than "3650d"'),
    "unique_while": (JOB + 'unique_while = "ever"', "4: job.a.unique_while: must be 'waiting' or 'active'"),
    "on_conflict": (JOB + 'on_conflict = "x"', "4: job.a.on_conflict: must be 'keep', 'refuse' or 'replace'"),
    "producers": (JOB + 'producers = ["all"]', "4: job.a.producers[0]: must be 'app' or 'tenant'"),
    "no producers": (JOB + "producers = []", "4: job.a.producers: must not be empty"),
    "job name": ('[job.A-b]\npython = "m:f"', f"2: job.A-b: {NAME}"),
    "strange job name": ('[job."a\\u001b"]\npython = "m:f"', f'2: job."a\\x1b": {NAME}'),
    "step name": ('[job.a.steps]\nS = { sql = "f" }', f"3: job.a.steps.S: {NAME}"),
    "step function": ('[job.a.steps]\ns = { sql = "f(); x" }', f"3: job.a.steps.s.sql: {FUNCTION}"),
    "step function, three parts": ('[job.a.steps]\ns = { sql = "a.b.c" }', f"3: job.a.steps.s.sql: {FUNCTION}"),
    "step without function": ("[job.a.steps]\ns = {}", "3: job.a.steps.s.sql: missing"),
    "argument": (STEP + '[job.a.arguments]\n"x y" = "t"', '5: job.a.arguments."x y": must be a plain SQL name'),
    "argument value": (STEP + '[job.a.arguments]\nx = "{t}"', "5: job.a.arguments.x: must be the name of a column"),
    "search path": ('[database]\nsearch_path = "a;b"', "3: database.search_path: must be names of schemas"),
    "python": ('[job.a]\npython = "m.f"', '3: job.a.python: must be "module:function"'),
    "python, dots": ('[job.a]\npython = "m..n:f"', '3: job.a.python: must be "module:function"'),
    "address": ('[job.a]\nhttp = "ftp://x"', f"3: job.a.http: {ADDRESS}"),
    "address with placeholder": ('[job.a]\nhttp = "http://x/{id}"', f"3: job.a.http: {ADDRESS}"),
    "address with line break": ('[job.a]\nhttp = "http://x/\\r\\nA: b"', f"3: job.a.http: {ADDRESS}"),
    "address with password": ('[job.a]\nhttp = "http://u:p@x/"', "3: job.a.http: credentials belong into headers"),
    "fallback": (JOB + 'fallback = "x"', f"4: job.a.fallback: {ADDRESS}"),
    "header name": (CALL + 'headers = { "A b" = "c" }', '4: job.a.headers."A b": must be the name of a header'),
    "header value": (CALL + 'headers = { A = "b\\r\\nC: d" }', "4: job.a.headers.A: must not hold control characters"),
    "secret": (CALL + 'secrets = ["plain text"]', "4: job.a.secrets[0]: must be a Standard Webhooks secret"),
    "network": (CALL + 'allow = ["10.0.0.0/99"]', "4: job.a.allow[0]: must be a network such as"),
    "body": (CALL + "body = { at = 2026-01-01 }", "4: job.a.body: must be a value that JSON has; write dates"),
    "body, nan": (CALL + "body = { at = [nan] }", "4: job.a.body: must be a value that JSON has; nan and inf are not"),
    "body, brace": (CALL + 'body = { a = ["{x"] }', "4: job.a.body: a lone { at character 1; write {name}, or {{"),
    "template": (JOB + 'unique_key = "a}"', "4: job.a.unique_key: a lone } at character 2; write {name}, or }}"),
    "template, spaces": (JOB + 'concurrency_key = "{ a }"', "4: job.a.concurrency_key: a lone { at character 1"),
    "template of a rate": (JOB + 'rate = { limit = 1, per = "1s", key = "{" }', "4: job.a.rate.key: a lone {"),
    "template of coalesce": (CALL + 'coalesce = { key = "{}" }', "4: job.a.coalesce.key: a lone {"),
    "template, control": (JOB + 'unique_key = "a\\u0000"', "4: job.a.unique_key: must not hold control characters"),
    "backlog": (JOB + 'backlog = { max = 5, then = "drop" }', "4: job.a.backlog.then: must be 'delay' or 'refuse'"),
    "backlog share": (
        JOB + "backlog = { max = 5, per_tenant = 2 }",
        '4: job.a.backlog.per_tenant: only with then = "ref',
    ),
    "backlog share, too large": (
        JOB + 'backlog = { max = 5, per_tenant = 6, then = "refuse" }',
        "4: job.a.backlog.per_tenant: more than max, which is 5",
    ),
    "job rate": (JOB + "rate = { limit = 5 }", "4: job.a.rate.per: missing"),
    "rate": ('[rate.x]\nper = "1m"', "2: rate.x.limit: missing"),
    "rate name": ('[rate.X]\nlimit = 1\nper = "1m"', f"2: rate.X: {NAME}"),
    "cron": (JOB + '[schedule.s]\njob = "a"\ncron = "2am"', "6: schedule.s.cron: must be five fields such as"),
    "cron, out of range": (DAILY.replace("0 2 *", "60 2 *"), "4: schedule.s.cron: is no cron: bad minute"),
    "cron, never": (DAILY.replace("0 2 * *", "0 2 31 2"), "4: schedule.s.cron: is no cron: bad day-of-month"),
    "zone": (DAILY.replace("[job", 'zone = "Mars/X"\n[job'), "5: schedule.s.zone: must be a time zone such as"),
    "payload": (DAILY.replace("[job", 'payload = { a = "\\u0000" }\n[job'), "5: schedule.s.payload: must not hold the"),
    "for_each": (DAILY.replace("[job", 'for_each = "f()"\n[job'), f"5: schedule.s.for_each: {FUNCTION}"),
    "listen": ('[http]\nlisten = "9464"', '3: http.listen: must be "host:port", the port at most 65535'),
    "digest": (KEYS % "abc", f"3: http.keys[0].sha256: {DIGEST}"),
    "scope": (KEYS.replace("read", "all") % ("a" * 64), "3: http.keys[0].scopes[0]: must be 'read', 'enqueue' or"),
    "wake": ('[worker]\nwake = "no"', "3: worker.wake: must be 'ring' or 'poll'"),
    "database address": ('[database]\ndirect_url = "mysql://u:p@h"', "3: database.direct_url: must begin with"),
    # what the environment lacks
    "unset": ('[job.a]\nhttp = "$APP/x"', "3: job.a.http: $APP not set in the environment"),
    "unset twice": ('[job.a]\nhttp = "$B/$A"', "3: job.a.http: $A and $B not set in the environment"),
    "lone dollar": ('[job.a]\nhttp = "http://x/$"', "3: job.a.http: a lone dollar; write $NAME, or $$ for a dollar"),
    "braces": ('[job.a]\nhttp = "${APP}"', "3: job.a.http: a lone dollar; write $NAME, or $$ for a dollar"),
    # what no key can see alone
    "no kind": ("[job.a]", "2: job.a: a job has exactly one of steps, python, http; this one has none"),
    "two kinds": (
        JOB + 'http = "http://x/"',
        "2: job.a: a job has exactly one of steps, python, http; this one has python",
    ),
    "order": ('[worker]\nfence = "4s"', "3: worker.fence: fence must be shorter than missing: beat < fence <"),
    "arguments of python": (JOB + 'arguments = { a = "b" }', "4: job.a.arguments: only for a job with steps"),
    "settings of steps": (
        '[job.a]\nsettings = { a = 1 }\n[job.a.steps]\ns = { sql = "f" }',
        "3: job.a.settings: only for",
    ),
    "headers of python": (JOB + 'headers = { a = "b" }', "4: job.a.headers: only for a job with http or fallback"),
    "no steps": ("[job.a]\nsteps = {}", "3: job.a.steps: a graph needs at least one step"),
    "unknown need": (
        '[job.a.steps]\ns = { sql = "f", needs = ["t"] }',
        "3: job.a.steps.s.needs: needs 't', which is not a step of this job",
    ),
    "needs itself": (
        '[job.a.steps]\ns = { sql = "f", needs = ["s"] }',
        "3: job.a.steps.s.needs: needs form a cycle: s -> s",
    ),
    "cycle": (
        '[job.a.steps]\ns = { sql = "f", needs = ["t"] }\nt = { sql = "f", needs = ["s"] }',
        "job.a.steps.",
    ),
    "then": (JOB + 'then = ["b"]', "4: job.a.then[0]: b is not a declared job"),
    "then_failed": (JOB + 'then_failed = ["b"]', "4: job.a.then_failed[0]: b is not a declared job"),
    "then a unique job": (
        JOB + 'then = ["b"]\n[job.b]\npython = "m:f"\nunique_key = "k"',
        "4: job.a.then[0]: b has a unique_key, so it cannot follow another job",
    ),
    "then itself": (JOB + 'then = ["a"]', "4: job.a.then: jobs follow in a circle: a -> a"),
    "then in a circle": (
        JOB + 'then = ["b"]\n[job.b]\npython = "m:f"\nthen_failed = ["a"]',
        "4: job.a.then: jobs follow in a circle: a -> b -> a",
    ),
    "schedule": ('[schedule.s]\njob = "gone"\ncron = "@daily"', "3: schedule.s.job: gone is not a declared job"),
    "payload and for_each": (
        DAILY.replace("[job", 'payload = {}\nfor_each = "f"\n[job'),
        "6: schedule.s.for_each: either payload or for_each, not both",
    ),
    "open listener": ('[http]\nlisten = "0.0.0.0:80"', "3: http.listen: beyond loopback only with keys"),
    "open listener, IPv6": ('[http]\nlisten = "[::]:80"', "3: http.listen: beyond loopback only with keys"),
    "two keys, one name": (
        "".join(f'[[http.keys]]\nname = "n"\nsha256 = "{"a" * 64}"\nscopes = ["read"]\n' for _ in range(2)),
        "7: http.keys[1].name: n is the name of another key already",
    ),
    "key of nothing": (
        KEYS % "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "3: http.keys[0].sha256: is the sha256 of nothing",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fault(case: str, tmp_path: Path) -> None:
    text, expected = CASES[case]
    found = faults(tmp_path, text)
    assert len(found) == 1
    assert expected in found[0]
    assert found[0].startswith("worker.toml:")


def test_all_faults_at_once_by_line(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """\
        [worker]
        poll = 5
        [job.a]
        parrallel = 2
        then = ["nobody"]
        [job.a.steps]
        s = { needs = ["gone"] }
        t = { sql = "f", needs = ["u"] }
        u = { sql = "f", needs = ["t"] }
        [job.b]
        [schedule.n]
        job = "nothing"
        """,
        {**URL, "DATABASE_URL": "mysql://u:p@h/d"},
    )
    assert [fault.partition(" ")[0] for fault in found] == [
        *(f"worker.toml:{line}:" for line in (3, 5, 6, 8, 8, 9, 11, 12, 13)),
        "environment",
    ]


def test_no_fault_follows_from_another(tmp_path: Path) -> None:
    text = (
        '[http]\nlisten = "0.0.0.0:80"\nkeys = [{ name = "n", sha256 = "x", scopes = ["x"] }]\n'
        '[job.a]\npython = "m:f"\nthen = ["b"]\n[job.b]\nhttp = "$GONE/x"\nbody = { a = 1 }\n'
    )
    assert [fault.split(": ")[1] for fault in faults(tmp_path, text)] == [
        "http.keys[0].scopes[0]",
        "http.keys[0].sha256",
        "job.b.http",
    ]


def test_a_faulty_step_is_there_for_others(tmp_path: Path) -> None:
    text = '[job.a.steps]\ns = { sql = "f", needs = ["t", "U"] }\nt = 5\nU = { sql = "f" }\n'
    assert [fault.split(": ")[:2] for fault in faults(tmp_path, text)] == [
        ["worker.toml:3", "job.a.steps.s.needs[1]"],
        ["worker.toml:4", "job.a.steps.t"],
        ["worker.toml:5", "job.a.steps.U"],
    ]


def test_what_is_required(tmp_path: Path) -> None:
    assert faults_of(written(tmp_path, "\n"), {}) == [
        "worker.toml:1: database.url: missing; set it here, or DATABASE_URL in the environment",
        "worker.toml:1: environment: missing",
    ]


@pytest.mark.parametrize(
    "password", ["ge/heim", "1/geheim", "ge#heim", "1#geheim", "ge?heim", "1?geheim", "ge[heim", "a@1/geheim"]
)
def test_a_bare_character_in_the_password_is_told_with_its_cure(tmp_path: Path, password: str) -> None:
    url = f"postgresql://u:{password}@db.test:5432/x"
    cure = (
        "database.url: is no address: percent-encode characters such as / # ? [ ] in the password; ports are 1 to 65535"
    )
    assert faults(tmp_path, "", {"DATABASE_URL": url}) == [f"environment DATABASE_URL: {cure}"]
    text = f'[database]\nurl = "postgresql://u@h/x"\ndirect_url = "{url}"'
    (fault,) = faults(tmp_path, text, {})
    assert fault.startswith("worker.toml:4: database.direct_url: is no address: percent-encode")
    assert "heim" not in fault


@pytest.mark.parametrize(
    "place",
    ["h:x/d", "h:99999/d", "h:0/d", "h:/d", "h1:1,h2:x/d", "h1,,h2/d", "h/d?port=x", "h1,h2/d?port=1,x",
     "h/d?port=65536", "h/d?port=", "/d?host=a,,b", "h/d?sslmode", "h/d?a=1&&b=2"],
)  # fmt: skip
def test_an_address_that_the_driver_stumbles_over_is_refused_before(tmp_path: Path, place: str) -> None:
    (fault,) = faults(tmp_path, "", {"DATABASE_URL": f"postgresql://u:geheim@{place}"})
    assert fault.startswith("environment DATABASE_URL: database.url: is no address: ")
    assert "geheim" not in fault


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%2Fq@h/d", "postgresql://u:p:q@r@h:5432/d", "postgresql:///d?host=/run&user=a@b",
        "postgresql://h1:5432,h2:5433/d?target_session_attrs=read-write", "postgresql://[::1]:5432/d",
        "postgresql://%2Frun%2Fpg/d", "postgres://", "postgresql://h:5432?user=a@b", "postgresql://u:p@h/d?x=a@b",
        "postgresql:///d?host=/a,/b&port=1,65535", "postgresql://h/d?x=",
    ],
)  # fmt: skip
def test_addresses_of_every_kind_are_taken(tmp_path: Path, url: str) -> None:
    found = load(written(tmp_path, 'environment = "test"'), {"DATABASE_URL": url}).database.url
    assert found is not None
    assert found.get_secret_value() == url


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    found = faults(tmp_path, '[database]\nurl = "$DATABASE_URL"', {"DATABASE_URL": ""})
    assert found == ["worker.toml:3: database.url: $DATABASE_URL not set in the environment"]


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [
        ("[http]", "99999", 'environment PORT: http.listen: must be "host:port", the port at most 65535'),
        ("[http]", "x\n", 'environment PORT: http.listen: must be "host:port", the port at most 65535'),
        ("[http]", "80", "environment PORT: http.listen: beyond loopback only with keys; add [[http.keys]]"),
    ],
)
def test_faults_of_the_environment(text: str, port: str, expected: str, tmp_path: Path) -> None:
    assert faults(tmp_path, text, {**URL, "PORT": port}) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a = 1\nb = = 2\n", "worker.toml:2: Invalid value at column 5"),
        (b"a = 1\na = 2\n", "worker.toml:2: Cannot overwrite a value"),
        (b"a = 1\nb = '''\n\n", "worker.toml:3: "),
        (b"a = 1\nb = '\xff'\n", "worker.toml:2: not UTF-8"),
        (b"a = " + b"[" * 100_000, "worker.toml: nested too deeply"),
    ],
)
def test_faults_of_syntax(text: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "worker.toml").write_bytes(text)
    [found] = faults_of(tmp_path / "worker.toml")
    assert expected in found


def test_no_file(tmp_path: Path) -> None:
    assert faults_of(tmp_path / "gone.toml") == ["gone.toml: no such file; give another with --config"]
    (tmp_path / "folder.toml").mkdir()
    assert faults_of(tmp_path / "folder.toml") == ["folder.toml: cannot be read: Is a directory"]
