"""The deploy files, each by its own tool where it is there, and by what they promise each other."""

import json
import re
import shutil
import subprocess
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.plain import faults, read_yaml
from tests.support import ROOT
from worker.cli import exits
from worker.config import load

DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "worker.service").read_text(encoding="utf-8")
BLUEPRINTS: dict[str, Any] = {
    name: read_yaml((DEPLOY / f"{name}.yaml").read_text(encoding="utf-8")) for name in ("render", "render-worker")
}
SCRAPES = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
SCHEMA = json.loads((Path(__file__).parent / "render.schema.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
FILES = [ROOT / "Dockerfile", ROOT / ".dockerignore", *sorted(path for path in DEPLOY.iterdir() if path.is_file())]
MOST_EXPOSED = 1.2
SHOWN = ("worker.service", "render.yaml", "render-worker.yaml", "kubernetes.yaml", "podmonitor.yaml", "prometheus.yml")
BINARY = "/opt/job-queue-worker/bin/worker"
ENVIRONMENT = {"DATABASE_URL": "postgresql://db/x", "METRICS_KEY_SHA256": "a" * 64}

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze (Debian: systemd)")
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool (Debian: prometheus)")


def grace(folder: Path) -> float:
    """What running jobs are given by default."""
    path = folder / "worker.toml"
    path.write_text('environment = "test"\n', encoding="utf-8")
    return load(path, ENVIRONMENT).worker.grace


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_addresses_inside(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\w+://|index-url|find-links", text) == []


# What is shipped


def test_the_sdist_holds_what_wheel_image_and_pages_are_made_of() -> None:
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    held = {path.removeprefix("/") for path in targets["sdist"]["include"]}
    assert [path for path in sorted(held) if not (ROOT / path).exists()] == []
    made_of = {*targets["wheel"]["packages"], *targets["wheel"]["force-include"]}
    copied = {path for line in re.findall(r"^COPY ([^-].*) \S+$", DOCKERFILE, re.MULTILINE) for path in line.split()}
    by_itself = {"pyproject.toml", "README.md", "LICENSE"}  # hatchling takes these along
    named = {path.partition("/")[0] for path in made_of | copied} | {"docs", "deploy", "Dockerfile", "tests"}
    assert named - held - by_itself == set()


# Dockerfile


def test_the_image_runs_as_nobody_in_particular_and_is_stopped_by_sigterm() -> None:
    final = DOCKERFILE.split("\nFROM ")[-1]
    assert re.findall(r"^(?:RUN|ADD) ", final, re.MULTILINE) == []
    said = dict(re.findall(r"^(USER|STOPSIGNAL|ENTRYPOINT|CMD) (.+)", final, re.MULTILINE))
    assert (said["USER"], said["STOPSIGNAL"]) == ("10001:10001", "SIGTERM")
    assert ("ENTRYPOINT" in said, json.loads(said["CMD"])) == (False, ["worker", "run"])


def test_both_stages_stand_on_one_base_pinned_by_its_digest() -> None:
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]
    (base,) = re.findall(r"^ARG BASE=(.+)", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)


def test_every_install_is_from_a_hashed_lock_or_from_here() -> None:
    commands = re.split(r"&&|\n(?! )", DOCKERFILE)
    installs = [each for each in commands if re.search(r"/pip .*\b(install|wheel)\b", each)]
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install
        assert "--no-deps" in install


def test_the_build_lock_is_what_pyproject_asks_for() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    lock = (DEPLOY / "build.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([\w-]+)==", lock, re.MULTILINE))
    assert {re.split(r"[<>=~!]", each)[0] for each in wanted} <= locked
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\S)", lock))


def test_what_is_copied_is_let_in_and_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    let_in = {line.removeprefix("!") for line in ignored.splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert "\n*\n" in ignored
    assert {source for copy in copies for source in copy.split()} == let_in
    assert all((ROOT / each).exists() for each in let_in)


# systemd


def verified(folder: Path, unit: str) -> str:
    """What systemd-analyze prints; it exits 0 on unknown keys, so only silence is good."""
    path = folder / "worker.service"
    path.write_text(unit.replace(BINARY, str(shutil.which("true"))), encoding="utf-8")
    ended = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    return f"{ended.stdout}{ended.stderr}{ended.returncode or ''}"


@needs_systemd
def test_systemd_finds_nothing(tmp_path: Path) -> None:
    assert UNIT.count(BINARY) == 1
    assert verified(tmp_path, UNIT) == ""


@needs_systemd
@pytest.mark.parametrize(
    ("right", "wrong"), [("RestartPrevent", "RestartPrefent"), ("TimeoutStopSec=35", "TimeoutStopSec=soon")]
)
def test_systemd_would_find_a_fault(tmp_path: Path, right: str, wrong: str) -> None:
    assert verified(tmp_path, UNIT.replace(right, wrong)) != ""


@needs_systemd
def test_the_unit_is_closed(tmp_path: Path) -> None:
    """What is left are the network, its sockets, and two calls that set priorities."""
    path = tmp_path / "worker.service"
    path.write_text(UNIT.replace(BINARY, str(shutil.which("true"))), encoding="utf-8")
    ended = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (score,) = re.findall(r"Overall exposure level for worker\.service: ([0-9.]+)", ended.stdout)
    assert float(score) <= MOST_EXPOSED, ended.stdout


def test_the_unit_gives_a_stop_its_time(tmp_path: Path) -> None:
    said = dict(re.findall(r"^(\w+)=(.*)", UNIT, re.MULTILINE))
    assert float(said["TimeoutStopSec"]) >= grace(tmp_path) + 5
    assert (said["Type"], said["KillSignal"], said["KillMode"]) == ("notify", "SIGTERM", "mixed")
    assert said["Restart"] == "on-failure"
    # Not a bug, and not a database that is away: another process may do better.
    assert said["RestartPreventExitStatus"] == f"{exits.ERROR} {exits.SCHEMA}"
    assert not {exits.BUG, exits.UNREACHABLE, exits.WATCHDOG} & {exits.ERROR, exits.SCHEMA}


# Render


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_is_as_render_wants_it(name: str) -> None:
    assert list(faults(SCHEMA, BLUEPRINTS[name])) == []


def test_the_schema_would_find_a_fault() -> None:
    def with_(**changes: Any) -> list[str]:
        changed = deepcopy(BLUEPRINTS["render"])
        changed["services"][0].update(changes)
        return list(faults(SCHEMA, changed))

    assert with_(runtim="docker") == ["/services/0: runtim is unknown"]
    assert with_(maxShutdownDelaySeconds=600) == ["/services/0/maxShutdownDelaySeconds: 600 against maximum 300"]
    assert with_(numInstances="1") == ["/services/0/numInstances: not of type integer"]
    assert with_(type="worker")  # which has no health check
    assert with_(envVars=[{"key": "A", "value": "x", "sync": False}])
    assert with_(envVars=[{"key": "A", "fromDatabase": {"name": "job-queue", "property": "url"}}])


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_gives_a_stop_its_time_and_names_its_database(tmp_path: Path, name: str) -> None:
    blueprint = BLUEPRINTS[name]
    daemon = blueprint["services"][0]
    assert daemon["maxShutdownDelaySeconds"] >= grace(tmp_path) + 5
    assert daemon["preDeployCommand"] == "worker migrate"
    for service in blueprint["services"]:
        named = {each["fromDatabase"]["name"] for each in service["envVars"] if "fromDatabase" in each}
        assert named == {each["name"] for each in blueprint["databases"]}
        assert {each["key"] for each in service["envVars"]} == ENVIRONMENT.keys()
        assert service["region"] == blueprint["databases"][0]["region"]


def test_one_blueprint_is_reached_and_the_other_has_an_exporter_instead() -> None:
    said = {name: [each["type"] for each in blueprint["services"]] for name, blueprint in BLUEPRINTS.items()}
    assert said == {"render": ["web"], "render-worker": ["worker", "web"]}
    exporter = BLUEPRINTS["render-worker"]["services"][1]
    assert exporter["dockerCommand"] == "worker exporter"
    assert {each["healthCheckPath"] for each in (exporter, BLUEPRINTS["render"]["services"][0])} == {"/healthz"}


@pytest.mark.parametrize(
    "text", ["a: 1\n  b: 2", "a: &x 1", "a: {b: 1}", "a: yes", "a: |", "a:", "a: 1\na: 2", "a: 'x'", "a: 0700"]
)
def test_other_yaml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_yaml(text)


# Prometheus


@needs_promtool
def test_promtool_finds_nothing(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(DEPLOY / name, tmp_path)
    (tmp_path / "worker.key").write_text("key\n", encoding="utf-8")
    ended = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_scrape_brings_its_key_and_comes_to_the_default_port() -> None:
    read = read_yaml(SCRAPES)
    assert [(DEPLOY / name).exists() for name in read["rule_files"]] == [True]
    (scrape,) = read["scrape_configs"]
    assert scrape["authorization"] == {"type": "Bearer", "credentials_file": "worker.key"}
    assert scrape["static_configs"] == [{"targets": ["127.0.0.1:9464"]}]


# The page


def test_every_worker_toml_of_the_page_is_right(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for block in blocks:
        path = tmp_path / "worker.toml"
        path.write_text(block, encoding="utf-8")
        load(path, {**ENVIRONMENT, "PORT": "10000"})


def test_the_page_has_a_section_for_each_file() -> None:
    for name in ("Dockerfile", *(f"deploy/{each}" for each in SHOWN)):
        assert f"](../{name})" in PAGE
