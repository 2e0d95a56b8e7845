"""`check`: what is wrong before the daemon finds out, each with its cure."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath

if TYPE_CHECKING:
    from worker.check import Finding

_SIGNS = {"ok": "✓", "info": "·", "warning": "!", "fault": "✗"}


def check(
    config_only: Annotated[bool, typer.Option("--config-only", help="Look at the configuration alone.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Look at configuration, database, rights, connections and what goes on; say what is wrong, and the cure.

    Exit code 1 when there is a fault; warnings and information are no faults. Changes nothing, and takes about a minute
    at the very most.
    """
    from worker import log
    from worker.check import examine, examine_config
    from worker.cli.paper import put, put_json
    from worker.cli.reach import go

    log.configure(level="critical")  # what it finds, it says itself
    loaded, findings = examine_config(config)
    if loaded is not None and not config_only:
        findings += go(examine(loaded))
    sound = not any(finding.level == "fault" for finding in findings)
    if as_json:
        put_json({"ok": sound, "findings": [finding.as_dict() for finding in findings]})
    else:
        for finding in findings:
            put(_told(finding))
    if not sound:
        raise typer.Exit(1)


def _told(finding: "Finding") -> str:
    cure = f"\n  cure: {finding.cure}" if finding.cure else ""
    return f"{_SIGNS[finding.level]} {finding.code}: {finding.said}{cure}"
