"""worker.toml and the coroutines it names: all that can be judged without a database."""

import zoneinfo
from pathlib import Path

from worker.check.finding import Finding, fault, ok, warning
from worker.config import Config, load, secret_values
from worker.errors import ConfigError, DeclarationError
from worker.handlers import coroutine
from worker.log import register_secrets

SUBJECT = "configuration"
_READ = "docs/configuration.md lists every key with type and default"


def examine_config(path: Path) -> tuple[Config | None, list[Finding]]:
    """The configuration, or None when it cannot be used, and what was found in it."""
    try:
        config = load(path)
    except ConfigError as error:
        return None, [*_zones(), *(fault("configuration.invalid", each, _READ) for each in error.faults)]
    register_secrets(secret_values(config))
    found = [_unwise(each) for each in config.warnings]
    found += _coroutines(config)
    types = f"{len(config.job)} job type{'' if len(config.job) == 1 else 's'}"
    return config, [ok(SUBJECT, f"{path} declares {types} for {config.environment}"), *found]


def _unwise(said: str) -> Finding:
    before, chmod, rest = said.partition(": chmod o-r")
    if chmod:
        return warning("configuration.readable", before, f"chmod o-r{rest or ' ' + before.partition(':')[0]}")
    return warning("configuration.unwise", said, _READ)


def _coroutines(config: Config) -> list[Finding]:
    found = []
    for job_type in config.job.values():
        if job_type.kind == "python":
            try:
                coroutine.build(job_type)
            except DeclarationError as error:
                cure = "name an `async def` function of one argument, in a module on Python's path"
                found += [fault("coroutines.unusable", each, cure) for each in error.faults]
    return found


def _zones() -> list[Finding]:
    if "UTC" in zoneinfo.available_timezones():
        return []
    cure = "install the system's tzdata, or `pip install tzdata` beside this program"
    return [fault("configuration.zones", "this machine knows no time zones, so schedules cannot be read", cure)]
