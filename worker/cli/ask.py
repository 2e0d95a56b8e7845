"""Asking before something is destroyed."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.config import Config


def agreed(deed: str, config: "Config", yes: bool) -> bool:
    """Say what will be done and where, and ask; without a terminal to ask on, only --yes counts.

    Raises:
        Refused: nobody can be asked.
    """
    from worker.cli.verdict import Refused
    from worker.log import safe

    told = safe(f"on {config.environment}: {deed}")
    if yes:
        print(told, file=sys.stderr)
        return True
    if not sys.stdin.isatty():
        raise Refused(f"{told}: nobody is here to ask; repeat with --yes")
    print(f"{told}\nGo on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("nothing was done", file=sys.stderr)
    return False
