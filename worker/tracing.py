"""Whether this process traces: only where the environment says so, by the standard variables of OpenTelemetry."""

import os
from collections.abc import Mapping

import structlog

from worker.traces import Traces

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_log = structlog.get_logger()


def wanted(environ: Mapping[str, str]) -> bool:
    """True when an exporter or its endpoint is named and the SDK is not switched off."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return bool(exporter) or any(environ.get(name) for name in _ENDPOINTS)


def traces(environment: str, version: str, environ: Mapping[str, str] = os.environ) -> Traces:
    """What makes this process's spans; where it cannot, a warning, for no job depends on it."""
    if not wanted(environ):
        return Traces()
    try:
        from worker.otel import configured  # a tenth of a second, for those who trace

        return configured(environ, environment, version)
    except (ImportError, LookupError) as error:
        cure = "pip install 'job-queue-worker[otel]'"
        _log.warning("config.warning", warning=f"OTEL_ variables ask for traces, and there are none: {error}; {cure}")
        return Traces()
