"""Durations on the command line, written as in worker.toml."""

import typer


def seconds(text: str, option: str) -> float:
    """`500ms`, `30s`, `5m`, `24h` or `7d` in seconds; a usage error otherwise."""
    from worker.config import duration

    try:
        return duration.parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint=option) from None
