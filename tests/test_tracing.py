"""Whether a process traces: by OpenTelemetry's own variables alone, and it ends whatever becomes of its spans."""

import json
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from tests.support import ROOT
from worker import tracing
from worker.traces import Traces


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_only_the_standard_variables_ask_for_traces(environ: dict[str, str], wanted: bool) -> None:
    assert tracing.wanted(environ) is wanted


def test_what_is_asked_for_and_not_there_is_a_warning_and_no_more() -> None:
    with capture_logs() as logs:
        made = tracing.traces("test", "0", {"OTEL_TRACES_EXPORTER": "carrier_pigeon"})
    assert type(made) is Traces
    assert [line["event"] for line in logs] == ["config.warning"]
    assert "no exporter carrier_pigeon is installed; pip install 'job-queue-worker[otel]'" in logs[0]["warning"]


def run(code: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    code = "import sys, worker.service as s; s.traces('t', '0'); print('opentelemetry.sdk' in sys.modules)"
    assert run(code) == "False\n"
    assert run(code, OTEL_TRACES_EXPORTER="console") == "True\n"


STUCK = """
import asyncio, threading
from worker import otel
class Stuck(otel.SpanExporter):
    def export(self, spans): threading.Event().wait()
    def shutdown(self): pass
otel._exporters = lambda environ: [Stuck()]
otel.CLOSE_SECONDS = 0.1
made = otel.configured({}, "test", "0")
async def main():
    made._tracer.start_span("lost").end()
    await made.close()
asyncio.run(main())
print("ended")
"""


def test_a_collector_that_never_answers_keeps_no_process_from_its_end() -> None:
    assert run(STUCK) == "ended\n"


CONSOLE = """
import asyncio
from worker.tracing import traces
made = traces("test", "1.2.3")
async def handler(context): return None
from tests.heart import job
from worker.context import Context
async def main():
    await made.handlers({"work": handler})["work"](Context([job()], {}, None, None))
    await made.close()
asyncio.run(main())
"""


def test_the_sdks_own_variables_configure_it() -> None:
    span = json.loads(run(CONSOLE, OTEL_TRACES_EXPORTER="console"))
    resource = span["resource"]["attributes"]
    assert (span["name"], resource["service.name"]) == ("work", "job-queue-worker")
    assert (resource["service.version"], resource["deployment.environment.name"]) == ("1.2.3", "test")
    span = json.loads(run(CONSOLE, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="club"))
    assert span["resource"]["attributes"]["service.name"] == "club"
