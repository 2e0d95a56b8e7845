"""`demo`: a shipped system at work, on a database of its own."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.options import AsJson


def demo(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Which: stats, reconcile, auto-sync, sync, games.")
    ] = "stats",
    config: Annotated[
        Path | None, typer.Option("--config", metavar="PATH", help="For stats: start from this file instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a shipped system at work, on a fresh private Postgres: a football club's statistics, a reconcile, or syncs.

    With DATABASE_URL set, a fresh database on that server is used instead, and dropped in the end.
    """
    from worker.cli.exits import INTERRUPTED, NO
    from worker.cli.paper import put_json
    from worker.cli.verdict import say
    from worker.demo import DEMOS, play

    if name not in DEMOS:
        raise typer.BadParameter(f"there is no demo {name!r}; there are: {', '.join(DEMOS)}", param_hint="NAME")
    if config is not None and name != "stats":
        raise typer.BadParameter(f"the demo {name} brings its own", param_hint="--config")
    if config is not None:
        _check(config)
    try:
        told = play(name, quiet=as_json, config=config)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:  # whatever kept it from happening, the answer to "does it work here?" is no
        say(error)
        raise typer.Exit(NO) from None
    if as_json:
        put_json(told)
    if "missing" in told:  # a program that the demo needs for the rest of its story
        raise typer.Exit(NO)


def _check(config: Path) -> None:
    """Refuse a file without what the demo runs, before a server is started for it."""
    import tomllib

    from worker.cli.verdict import Refused

    try:
        declared = tomllib.loads(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise Refused(f"{config} cannot be read: {error}") from None
    job = declared.get("job", {})
    if not isinstance(job, dict) or "steps" not in job.get("stats_update", {}):
        raise Refused(f"{config} declares no [job.stats_update] with steps, which the demo runs; leave --config out")
