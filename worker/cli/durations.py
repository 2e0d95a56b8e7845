"""Durations and rates on the command line, written as in worker.toml."""

import typer


def seconds(text: str, option: str) -> float:
    """`500ms`, `30s`, `5m`, `24h` or `7d` in seconds; a usage error otherwise."""
    from worker.config import duration

    try:
        return duration.parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint=option) from None


def a_second(text: str, option: str) -> float:
    """`10/s`, `30/m` or `100/h` as so many a second; a usage error otherwise."""
    import re

    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)/(s|m|h)", text)
    if match is None or not float(match[1]):
        raise typer.BadParameter(f"{text!r}: must be a rate such as 10/s, 30/m or 100/h", param_hint=option)
    return float(match[1]) / {"s": 1, "m": 60, "h": 3600}[match[2]]
