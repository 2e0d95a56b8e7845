"""`exporter`: metrics where nobody can reach the daemons."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import DEFAULT_CONFIG, ConfigPath

if TYPE_CHECKING:
    from worker.config import Config


def exporter(
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Instead of http.listen and PORT.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
) -> None:
    """Serve metrics of the database, and of all daemons together, until it is stopped.

    For platforms where the daemons have no port. A login in worker_read is enough. Of the configuration it reads
    environment, database.url and [http], whose rules hold: beyond loopback only with keys. A scrape asks the database
    nothing; a database that does not answer is waited for.
    """
    from worker.cli.reach import address, go, listening

    loaded = listening(config, listen)
    address(loaded)
    go(_serve(loaded))


async def _serve(config: "Config") -> None:
    from worker.stop import Stop, leave_behind

    stop = Stop()
    stop.on_signals()
    from worker.cli.reach import address
    from worker.cli.verdict import logged
    from worker.exporter import Exporter, serve
    from worker.life import release
    from worker.web import Web

    assert config.http is not None  # load_listener's promise
    web = Web(config.http)
    try:
        with logged(config.path):
            build = {"version": release(), "environment": config.environment}
            await serve(Exporter(address(config), build), web, stop)
    finally:
        stop.no_more()
    leave_behind()
