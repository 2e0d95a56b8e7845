"""`config`: what is in force, and what may be said."""

import typer

from worker.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath

app = typer.Typer(help="Show the configuration.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def show(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show every value in force, defaults and environment included; secrets are stars."""
    from worker.cli.paper import put, put_json
    from worker.cli.reach import configured
    from worker.config import render

    values = render(configured(config))
    if as_json:
        put_json(values)
        return
    for line in _lines("", values):
        put(line)


@app.command()
def schema(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print the JSON schema of worker.toml, for editors; it is the same for every file."""
    del config  # every verb takes --config; this one need not read it
    from worker.cli.paper import put_json
    from worker.config import config_schema

    put_json(config_schema())


def _lines(place: str, value: object) -> list[str]:
    """`a.b = value` for every value; an empty table is left out."""
    import orjson

    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _lines(f"{place}.{key}".lstrip("."), item)]
    return [f"{place} = {orjson.dumps(value).decode()}"]
