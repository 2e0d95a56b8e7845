"""The command `worker`: its verbs, and the one place where errors become exit codes."""

from typing import Any

import typer
from typer.core import TyperGroup

from worker.cli import configuration, daemon, demo, doctor, jobs, operate, produce, remove, schema, status
from worker.cli.exits import INTERRUPTED


class Verbs(TyperGroup):
    """Runs a verb; whatever it raises becomes one line on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):  # typer's own: usage errors and exits
                raise
            from worker.cli.verdict import say

            raise typer.Exit(say(error)) from None


app = typer.Typer(
    cls=Verbs,
    help="A Postgres job worker whose interface is the database.",
    epilog="Exit codes: 0 ok, 1 the answer is no, 2 usage, configuration or another error, 3 schema too old or too "
    "new, 4 database unreachable, 5 watchdog. Every verb takes --config PATH and --help.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command()(daemon.run)
app.command()(daemon.drain)
app.command()(doctor.check)
app.command()(schema.migrate)
app.command()(remove.uninstall)
app.command()(produce.enqueue)
app.command()(produce.cancel)
app.command()(operate.retry)
app.command()(operate.pause)
app.command()(operate.resume)
app.command()(operate.explain)
app.command()(jobs.show)
app.command("jobs")(jobs.list_jobs)
app.command()(status.status)
app.add_typer(configuration.app, name="config")
app.command()(demo.demo)
