"""The command `worker`: its verbs, and the one place where errors become exit codes."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worker.cli import (
    configuration,
    daemon,
    demo,
    doctor,
    exporter,
    jobs,
    operate,
    produce,
    reconcile,
    remove,
    schedule,
    schema,
    status,
)
from worker.cli.exits import BROKEN_PIPE, INTERRUPTED


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
            if isinstance(error, BrokenPipeError):
                raise typer.Exit(_unread()) from None
            from worker.cli.verdict import say

            raise typer.Exit(say(error)) from None


def _unread() -> int:
    """Nobody reads standard output any more (`worker jobs | head -1`): what is still buffered goes nowhere, quietly."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return BROKEN_PIPE


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"worker {version('job-queue-worker')}")
        except PackageNotFoundError:
            typer.echo("worker, not installed as a package")
        raise typer.Exit


app = typer.Typer(
    cls=Verbs,
    help="A Postgres job worker whose interface is the database.",
    epilog="Exit codes: 0 ok, 1 the answer is no, 2 usage, configuration or another error, 3 schema too old or too "
    "new, 4 database unreachable, 5 watchdog, 70 a bug. Every verb takes --config PATH and --help.",
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def worker(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the command itself."""
    del show_version  # its callback has ended the process


app.command()(daemon.run)
app.command()(daemon.drain)
app.command()(exporter.exporter)
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
app.command()(reconcile.reconcile)
app.add_typer(schedule.app, name="schedule")
app.add_typer(configuration.app, name="config")
app.command()(demo.demo)
