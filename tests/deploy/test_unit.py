"""The unit under a real systemd, installed as docs/deploy.md says. WORKER_TEST_UNIT=1 asks for it."""

import json
import os
import re
from collections.abc import Iterator

import pytest

from tests.deploy import machine
from tests.deploy.machine import CLONE, Machine
from tests.support import ROOT

UNIT = "job-queue-worker"
ADDRESS = "postgresql://jobs:geheim@/jobs?host=/run/postgresql"
FILE = """
environment = "production"
[job.greet]
arguments = { name = "name" }
steps = { say = { sql = "greet" } }
[job.tries]
python = "unit_jobs:work"
retry = { max_attempts = 1 }
"""
DATABASE = """
    su postgres -c "psql -qXc \\"create role jobs superuser login password 'geheim'\\" -c 'create database jobs'"
    psql -qX "{address}" -c "create function public.greet(name text) returns text language sql as 'select name'"
    mkdir -p {clone}/your && cp {clone}/given.toml {clone}/your/worker.toml
"""

pytestmark = [
    pytest.mark.skipif("WORKER_TEST_UNIT" not in os.environ, reason="WORKER_TEST_UNIT=1 boots a machine and tries it"),
    pytest.mark.skipif(machine.missing() is not None, reason=str(machine.missing())),
    pytest.mark.timeout(900),
]


def page(name: str, section: str) -> list[str]:
    """The blocks of commands in a section, with an address in place of the gap."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [each.replace("'postgresql://…'", f"'{ADDRESS}'") for each in blocks]


@pytest.fixture(scope="module")
def host() -> Iterator[Machine]:
    """A machine with the daemon on it, by the page's commands."""
    with machine.machine() as booted:
        booted.becomes("su postgres -c 'psql -qXc \"select 1\"'")
        booted.script(f"cat > {CLONE}/given.toml <<'EOF'\n{FILE}\nEOF")
        booted.script(DATABASE.format(address=ADDRESS, clone=CLONE))
        booted.script(f"install -D -m 644 -t /etc/{UNIT} {CLONE}/tests/deploy/unit_jobs.py")
        booted.script(f"cd {CLONE}\n{page('deploy.md', 'systemd')[0]}")
        yield booted


def shown(host: Machine, key: str) -> str:
    return host.run("systemctl", "show", "--property", key, "--value", UNIT).out.strip()


def ask(host: Machine, question: str) -> str:
    return host.run("psql", "-qXAt", ADDRESS, "-c", question).out.strip()


def finished(host: Machine, job: str) -> None:
    done = f"select 1 / (status in ('completed', 'failed'))::int from worker.jobs where id = {job}"
    host.becomes(f"psql -qX '{ADDRESS}' -c \"{done}\"")


def works(host: Machine) -> None:
    """A job comes and is done."""
    job = ask(host, """select worker.enqueue('greet', '{"name": "unit"}')""")
    finished(host, job)
    assert ask(host, f"select status from worker.jobs where id = {job}") == "completed"


def test_it_is_started_when_it_claims(host: Machine) -> None:
    assert (shown(host, "ActiveState"), shown(host, "SubState"), shown(host, "NRestarts")) == ("active", "running", "0")
    assert host.run("systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}.service") == (0, "", "")
    works(host)


def test_jobs_can_do_what_they_need_and_no_more(host: Machine) -> None:
    job = ask(host, "select worker.enqueue('tries')")
    finished(host, job)
    said = ask(host, f"select coalesce(result, errors) from worker.jobs where id = {job}")
    assert json.loads(said) == {
        "child": [45, 5, 500], "engine": True, "program": "hi\n", "resolver": 80, "certificates": True, "tmp": True,
        "callback": 7, "secret_in_environment": False, "write": "error 30", "write_opt": "error 30",
        "home": "error 13", "secrets_folder": "error 13", "process_one": False, "packet": "error 97", "mount": -1,
        "namespace": -1, "realtime": "error 1",
    }  # fmt: skip


def test_the_kernel_holds_it_to_its_restrictions(host: Machine) -> None:
    said = dict(re.findall(r"^(\w+):\s+(.*)", host.script(f"cat /proc/{shown(host, 'MainPID')}/status"), re.MULTILINE))
    assert (said["NoNewPrivs"], said["Seccomp"], int(said["CapBnd"], 16), int(said["CapPrm"], 16)) == ("1", "2", 0, 0)
    assert min(map(int, said["Uid"].split())) > 1000


def test_it_comes_back_when_it_is_killed(host: Machine) -> None:
    victim, restarts = shown(host, "MainPID"), int(shown(host, "NRestarts"))
    host.script(f"kill -9 {victim}")
    host.becomes(f"systemctl is-active --quiet {UNIT} && [ $(systemctl show -P MainPID {UNIT}) != {victim} ]")
    works(host)
    assert int(shown(host, "NRestarts")) == restarts + 1


def test_one_that_hangs_is_killed_by_its_watchdog(host: Machine) -> None:
    folder = f"/run/systemd/system/{UNIT}.service.d"
    host.script(f"mkdir -p {folder}; printf '[Service]\\nWatchdogSec=6\\n' > {folder}/w.conf; systemctl daemon-reload")
    host.run("systemctl", "restart", UNIT)
    victim = shown(host, "MainPID")
    host.script(f"kill -STOP {victim}")
    host.becomes(f"systemctl is-active --quiet {UNIT} && [ $(systemctl show -P MainPID {UNIT}) != {victim} ]", 60)
    assert "Failed with result 'watchdog'" in host.run("journalctl", "--unit", UNIT, "--no-pager").out


def test_it_outlives_its_database(host: Machine) -> None:
    before = shown(host, "MainPID")
    away = 8  # seconds, more than its watchdog has
    host.script(f"systemctl stop 'postgresql@*'; sleep {away}; systemctl start postgresql@15-main")
    host.becomes("su postgres -c 'psql -qXc \"select 1\"'")
    works(host)
    assert shown(host, "MainPID") == before


def test_the_next_release_takes_over_and_the_one_before_comes_back(host: Machine) -> None:
    for commands, release in zip(page("upgrade.md", "Under systemd"), ("0.2.0", "0.1.0"), strict=True):
        host.script(f"cd {CLONE}\n{commands}")
        runs = host.script(f"tr '\\0' ' ' < /proc/{shown(host, 'MainPID')}/cmdline")
        assert f"/opt/{UNIT}-{release}/bin/python" in runs
        works(host)


def test_a_stop_is_no_failure(host: Machine) -> None:
    host.run("systemctl", "stop", UNIT)
    assert (shown(host, "Result"), shown(host, "ExecMainStatus")) == ("success", "0")


def test_a_schema_of_another_release_is_not_tried_again(host: Machine) -> None:
    ask(host, "update worker.migration set digest = 'x' where name like 'functions/5%'")
    assert host.run("systemctl", "start", UNIT, check=False).code != 0
    assert (shown(host, "ExecMainStatus"), shown(host, "NRestarts")) == ("3", "0")
    assert "too old" in host.run("journalctl", "--unit", UNIT, "--no-pager", "-n", "5").out
