"""The daemon without the command line: `python -m tests.run_daemon --config worker.toml`."""

import argparse
import asyncio
from pathlib import Path

from worker import service
from worker.config import load
from worker.errors import WorkerError
from worker.log import configure
from worker.stop import Stop


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    given = parser.parse_args()
    configure(json=True)
    stop = Stop()
    stop.on_signals()
    await service.run(load(given.config), stop)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except WorkerError as error:
        raise SystemExit(f"error: {error}") from None
