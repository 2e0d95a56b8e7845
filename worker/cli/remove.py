"""`uninstall`: the SQL that removes everything, to be read before somebody runs it."""

from typing import Annotated

import typer

from worker.cli.options import DEFAULT_CONFIG, ConfigPath


def uninstall(
    show: Annotated[bool, typer.Option("--print", help="Print the SQL; required, nothing else is done.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Print the SQL that removes the schema with all jobs, and the roles as commented lines. Executes nothing."""
    del config  # every verb takes --config; this one needs neither file nor database
    from worker.cli.paper import put
    from worker.cli.verdict import Refused
    from worker.migrations import sql_root

    if not show:
        raise Refused("uninstall executes nothing: `worker uninstall --print` prints the SQL, you run it")
    put((sql_root() / "uninstall.sql").read_text(encoding="utf-8"))
