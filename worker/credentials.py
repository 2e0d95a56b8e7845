"""Secrets for the author of a job, from where `$NAME` in worker.toml takes them."""

import os

from worker.config.sources import Sources
from worker.log import register_secrets


def secret(name: str) -> str | None:
    """The secret of this name: of the environment, of the file that `NAME_FILE` in it names, or of systemd's
    `$CREDENTIALS_DIRECTORY`. Read anew by each call, so that a file may change, and starred in the log from then on.

    Returns:
        None where nobody gives one.

    Raises:
        ValueError: its file cannot be used; says why, and the cure.
    """
    value = Sources(os.environ).get(name)
    if value is not None:
        register_secrets([value])
    return value
