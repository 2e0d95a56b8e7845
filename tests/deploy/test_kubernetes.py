"""The example for Kubernetes: against the parts of its own schemas, and what it promises the daemon."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.plain import faults, read_yaml
from tests.support import ROOT
from worker.config import load

TEXT = (ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8")
OBJECTS: dict[str, Any] = {each["kind"]: each for each in map(read_yaml, TEXT.split("\n---\n"))}
MONITOR: dict[str, Any] = read_yaml((ROOT / "deploy" / "podmonitor.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((Path(__file__).parent / "kubernetes.schema.json").read_text(encoding="utf-8"))
PODS = {kind: OBJECTS[kind]["spec"]["template"]["spec"] for kind in ("Job", "Deployment")}
DAEMON = PODS["Deployment"]["containers"][0]
CONFIG = OBJECTS["ConfigMap"]["data"]["worker.toml"]
SECRETS = "/run/secrets/job-queue"
GIVEN = {"DATABASE_URL": "postgresql://db/x", "METRICS_KEY_SHA256": "a" * 64}


def found(thing: Any) -> list[str]:
    """What in an object is not as Kubernetes has it."""
    return list(faults(SCHEMA["$defs"][thing["kind"]], thing, SCHEMA))


@pytest.mark.parametrize("kind", ["ConfigMap", "Job", "Deployment"])
def test_an_object_is_as_kubernetes_has_it(kind: str) -> None:
    assert found(OBJECTS[kind]) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda spec: spec.update(replicas="2"), "/spec/replicas: not of type integer"),
        (lambda spec: spec.update(replica=2), "/spec: replica is unknown"),
        (lambda spec: spec.pop("selector"), "/spec: {"),
        (
            lambda spec: spec["template"]["spec"].update(terminationGracePeriod=3),
            "/spec/template/spec: terminationGracePeriod is unknown",
        ),
        (
            lambda spec: spec["template"]["spec"]["containers"][0]["securityContext"].update(privileges=False),
            "/spec/template/spec/containers/0/securityContext: privileges is unknown",
        ),
    ],
)
def test_the_schema_would_find_a_fault(change: Callable[[Any], object], said: str) -> None:
    changed = deepcopy(OBJECTS["Deployment"])
    change(changed["spec"])
    (fault,) = found(changed)
    assert fault.startswith(said)


@pytest.mark.parametrize("kind", PODS)
def test_a_pod_has_no_right_that_it_does_not_need(kind: str) -> None:
    pod, dockerfile = PODS[kind], (ROOT / "Dockerfile").read_text(encoding="utf-8")
    runs = pod["securityContext"]
    assert f"USER {runs['runAsUser']}:{runs['runAsGroup']}\n" in dockerfile
    assert (runs["runAsNonRoot"], runs["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("kind", PODS)
def test_secrets_come_from_files(kind: str) -> None:
    (container,) = PODS[kind]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment.pop("CREDENTIALS_DIRECTORY") == SECRETS
    assert environment.keys() <= {"PORT"}
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    assert (mounts["secrets"], mounts["config"]) == (SECRETS, "/app/worker.toml")
    assert mounts.keys() == {each["name"] for each in PODS[kind]["volumes"]}


def test_a_stop_has_its_time(tmp_path: Path) -> None:
    (tmp_path / "worker.toml").write_text(CONFIG, encoding="utf-8")
    config = load(tmp_path / "worker.toml", {**GIVEN, "PORT": "9464"})
    assert PODS["Deployment"]["terminationGracePeriodSeconds"] >= config.worker.grace + 5
    assert config.http is not None
    assert config.http.port == DAEMON["ports"][0]["containerPort"]


def test_the_probes_go_where_the_daemon_listens() -> None:
    assert {DAEMON[probe]["httpGet"]["path"] for probe in ("livenessProbe", "startupProbe")} == {"/healthz"}
    port = {each["name"]: each["value"] for each in DAEMON["env"]}["PORT"]
    assert DAEMON["readinessProbe"]["exec"]["command"][3:] == [port, f"{SECRETS}/METRICS_KEY"]
    assert int(port) == DAEMON["ports"][0]["containerPort"]


@pytest.fixture
def listener() -> Iterator[ThreadingHTTPServer]:
    """Answers 200 to who brings the key, and only at /readyz."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = (self.path, self.headers["Authorization"]) == ("/readyz", "Bearer geheim")
            self.send_response(200 if good else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize(("key", "ready"), [("geheim\n", True), ("falsch", False)])
def test_the_readiness_command_asks_with_the_key(
    tmp_path: Path, listener: ThreadingHTTPServer, key: str, ready: bool
) -> None:
    (tmp_path / "METRICS_KEY").write_text(key, encoding="utf-8")
    _, flag, program, *_ = DAEMON["readinessProbe"]["exec"]["command"]
    given = [str(listener.server_port), str(tmp_path / "METRICS_KEY")]
    ended = subprocess.run([sys.executable, flag, program, *given], capture_output=True, timeout=30, check=False)
    assert (ended.returncode == 0) is ready, ended.stderr


def test_what_is_named_is_there() -> None:
    labels = OBJECTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert OBJECTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MONITOR["spec"]["selector"]["matchLabels"] == labels
    (endpoint,) = MONITOR["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == DAEMON["ports"][0]["name"]
    secret = OBJECTS["ConfigMap"]["metadata"]["name"]
    assert endpoint["authorization"]["credentials"] == {"name": secret, "key": "METRICS_KEY"}
    assert {volume["secret"]["secretName"] for volume in PODS["Deployment"]["volumes"] if "secret" in volume} == {
        secret
    }
    assert set(re.findall(r"\$([A-Z_0-9]+)", CONFIG)) <= GIVEN.keys()
