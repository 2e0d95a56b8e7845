"""The page for operators: what it tells them to type is there, and runs."""

import re
import shlex

import asyncpg
import pytest

from tests.cli.test_help import VERBS, options
from tests.deploy.test_alerts import series
from tests.support import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"(?ms)^```.*?^```\n", "", PAGE))
QUERIES = [
    query.strip()
    for text in [*(body for language, body in FENCED if language == "sql"), *INLINE]
    for query in re.sub(r"--.*", "", text).split(";")
    if re.match(r"\s*select\b", query) and not re.search(r"\((?:pid|id)\)|setval", query)
]
COMMANDS = [
    line.split(" # ")[0].rstrip()
    for text in [*(body for language, body in FENCED if not language), *INLINE]
    for line in text.splitlines()
    if line.startswith("worker ")
]


def settings() -> set[str]:
    """Keys of worker.toml with their section."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    sections = re.findall(r"(?ms)^## `\[+([\w.]+)\]+`\n(.*?)(?=^## |\Z)", page)
    return {f"{section}.{key}" for section, text in sections for key in re.findall(r"(?m)^\| `(\w+)`", text)}


async def names(connection: asyncpg.Connection) -> set[str]:
    """Functions, tables and views."""
    rows = await connection.fetch(
        "select proname::text from pg_proc where pronamespace = 'worker'::regnamespace "
        "union select relname from pg_class where relnamespace = 'worker'::regnamespace"
    )
    return {row[0] for row in rows}


def test_the_page_has_queries_and_commands() -> None:
    """Else the tests below would be skipped, and hold nothing."""
    assert min(len(QUERIES), len(COMMANDS)) >= 5


@pytest.mark.parametrize("query", QUERIES)
async def test_a_query_runs_for_a_reader(connection: asyncpg.Connection, query: str) -> None:
    await connection.execute("set role worker_read")
    prepared = await connection.prepare(query)
    await prepared.fetch()
    assert prepared.get_statusmsg().startswith("SELECT")


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_a_command_has_these_options(command: str) -> None:
    words = shlex.split(command)[1:]
    [verb] = [verb for verb in VERBS if words[: len(verb.split())] == verb.split()]
    assert {word for word in words if word.startswith("--")} - options(VERBS[verb]) == set()


async def test_every_name_is_one_of_the_schema_or_a_key(connection: asyncpg.Connection) -> None:
    named = {name for text in INLINE for name in re.findall(r"\bworker\.(\w+)", text)} - {"toml", "key"}
    assert named - await names(connection) - {key.rpartition(".")[2] for key in settings()} == set()


def test_every_series_is_there() -> None:
    named = {name for text in INLINE for name in re.findall(r"\bworker_[a-z_]+", text)}
    roles = {"worker_read", "worker_owner"}
    assert named - roles - series().keys() - {name.rpartition("_")[0] for name in series()} == set()


def test_every_event_of_the_log_is_there() -> None:
    page = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    events = set(re.findall(r"^\| `([a-z]+\.\w+)`", page, re.MULTILINE))
    others = {"context.to_process", "os._exit", "pg_hba.conf"}
    named = {text for text in INLINE if re.fullmatch(r"(?!worker\.)[a-z]+\.[a-z_]+", text)}
    assert named - events - settings() - others == set()


def test_every_link_to_a_section_leads_there() -> None:
    for page, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", PAGE):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8") if page else PAGE
        slugs = {
            re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"(?m)^#+ (.+)$", text)
        }
        assert anchor in slugs, f"{page}#{anchor}"
