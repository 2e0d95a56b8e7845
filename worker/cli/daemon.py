"""`run` and `drain`: the daemon for ever, and once."""

import gc
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath

if TYPE_CHECKING:
    from worker.config import Config
    from worker.drain import Report


def run(
    once: Annotated[bool, typer.Option("--once", help="Claim what is due once, wait for it, and end.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every step too.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Run the daemon until it is stopped.

    SIGTERM or Ctrl-C: no more claims, running jobs get worker.grace to finish, the rest is handed back. A second
    signal hands back at once. A database that does not answer is waited for.

    With --once it ends after one claim, and exit code 1 says that a job failed.
    """
    from worker import log
    from worker.cli.reach import address, configured, go

    loaded = configured(config, daemon=True)
    if verbose:
        log.configure(level="debug")
    address(loaded)
    go(_once(loaded) if once else _serve(loaded))


def drain(
    wait: Annotated[
        str, typer.Option("--wait", metavar="DURATION", help="Wait so long for retries and snoozes.")
    ] = "0s",
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Run what is due until nothing is left, follow-ups included; then say what is left, by reason.

    Exit code 1 when a job that it ran failed, or a claimable row, a retry or a snooze is left.
    """
    from worker.cli.durations import seconds
    from worker.cli.exits import INTERRUPTED, NO
    from worker.cli.paper import put, put_json
    from worker.cli.reach import configured, go

    patience = seconds(wait, "--wait")
    report = go(_drain(configured(config, daemon=True), patience))
    if report is None:
        raise typer.Exit(INTERRUPTED)
    if as_json:
        put_json(report.as_dict())
    else:
        put(report.sentences())
    if not report.all_done:
        raise typer.Exit(NO)


async def _serve(config: "Config") -> None:
    from worker.stop import Stop, leave_behind

    stop = Stop()
    stop.on_signals()  # before the heavy imports: a stop right after the start is a stop
    from worker import service
    from worker.cli.verdict import judge, logged
    from worker.notify import told

    web = None
    if config.http is not None:
        from worker.web import Web

        web = Web.of(config)  # before anything else: an address that is taken is a fault of the start
    collect_seldom()
    try:
        with logged(config.path):
            await service.run(config, stop, told(stop.asked), web=web)
    except Exception as error:
        leave_behind(code=judge(error)[0])
        raise
    finally:
        stop.no_more()
    leave_behind()


def collect_seldom() -> None:
    """Jobs come by the hundred and leave no cycles: looking for some took a quarter of a busy loop (decision 0015)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def _once(config: "Config") -> None:
    from worker import service
    from worker.cli.exits import INTERRUPTED, NO
    from worker.cli.once import Once
    from worker.cli.paper import put
    from worker.cli.reach import address, answering
    from worker.cli.verdict import Refused, logged
    from worker.stop import Stop

    if not config.worker.enabled:
        raise Refused(f"worker.enabled is false in {config.path}: nothing would be claimed")
    await answering(address(config))
    stop, once = Stop(), Once()
    stop.on_signals()
    with logged(config.path):
        await service.run(config, stop, instead=once.run)
    stop.no_more()
    if once.ran is None:
        raise typer.Exit(INTERRUPTED)
    put(f"ran: {', '.join(f'{jobs} {status}' for status, jobs in once.ran.items()) or 'nothing'}")
    if once.ran.get("failed"):
        raise typer.Exit(NO)


async def _drain(config: "Config", patience: float) -> "Report | None":
    from worker import service
    from worker.cli.reach import address, answering
    from worker.cli.verdict import Refused, logged
    from worker.drain import Drain
    from worker.stop import Stop

    if not config.worker.enabled:
        raise Refused(f"worker.enabled is false in {config.path}: nothing would be claimed; set it to true to drain")
    await answering(address(config))
    stop, draining = Stop(), Drain(patience)
    stop.on_signals()
    with logged(config.path):
        await service.run(config, stop, instead=draining.run)
    stop.no_more()
    return draining.report
