"""The pages name functions, views, SQLSTATEs and commands that exist, and none is missing."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.cli.test_help import VERBS, options
from tests.support import ROOT
from worker.config import Config, JobType, shape

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]

SQL_PAGE = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
STATES_PAGE = (ROOT / "docs" / "states.md").read_text(encoding="utf-8")
# The page of metrics is held to what the code has (tests/test_metrics.py), the others to that page.
METRICS = set(re.findall(r"worker_[a-z_]+", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")))
NO_METRIC = (
    "worker_id",
    "worker_owner",
    "worker_run",
    "worker_enqueue",
    "worker_tenant",
    "worker_operate",
    "worker_read",
)
STATE = "pending|running|completed|skipped|failed|cancelled"
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "sql" / "functions").glob("*.sql")))


async def test_every_name_of_the_sql_page_exists(connection: asyncpg.Connection) -> None:
    named = set(re.findall(r"`worker\.(\w+)", SQL_PAGE)) - {"stats_window", "tenant", "actor"}  # settings, not objects
    functions = await connection.fetch("select proname from pg_proc where pronamespace = 'worker'::regnamespace")
    relations = await connection.fetch("select relname from pg_class where relnamespace = 'worker'::regnamespace")
    assert named - {row[0] for row in [*functions, *relations]} == set()


def test_every_sqlstate_is_on_the_page_and_raised() -> None:
    assert set(re.findall(r"WK\d{3}", SQL_PAGE)) == set(re.findall(r"WK\d{3}", SOURCES))


def test_links_between_pages_lead_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert dead == []


def test_every_test_that_a_page_names_exists() -> None:
    named = {(page.name, path) for page in PAGES for path in re.findall(r"\btests/[\w/.]*\w", page.read_text("utf-8"))}
    assert {(page, path) for page, path in named if not (ROOT / path).exists()} == set()


def drawn() -> set[tuple[str, str]]:
    """The transitions of the diagram of states; `–` is before the first."""
    arrows = re.findall(r"^    (\S+) --> (\w+):", STATES_PAGE, re.MULTILINE)
    return {("–" if before == "[*]" else before, after) for before, after in arrows}


def listed() -> set[tuple[str, str]]:
    """The transitions of the audit's table."""
    audit = STATES_PAGE.partition("## The audit")[2]
    pairs: set[tuple[str, str]] = set()
    for events, before, after in re.findall(r"^\| ([a-z, ]+) \| ([^|]+) \| ([^|]+) \|", audit, re.MULTILINE):
        states = events if after == "the same word" else after
        befores = re.findall(r"–|pending|running|failed|cancelled", before)
        pairs |= {(one, two) for one in befores for two in re.findall(STATE, states) if one != two}
    return pairs


def test_the_diagram_of_states_has_the_transitions_of_the_audit() -> None:
    assert drawn() == listed()


async def test_the_states_are_those_of_the_table(connection: asyncpg.Connection) -> None:
    check = await connection.fetchval(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = 'job_queue_status_check'"
    )
    states = set(re.findall(r"'(\w+)'", check))
    assert set(re.findall(r"^\| (\w+) \| (?:yes|no) \|", STATES_PAGE, re.MULTILINE)) == states
    assert {state for pair in drawn() for state in pair} - {"–"} == states


async def test_functions(connection: asyncpg.Connection) -> None:
    named = {page: set(re.findall(r"(?<![\w./])worker\.([a-z_]+)\(", text)) for page, text in texts()}
    rows = await connection.fetch("select proname from pg_proc where pronamespace = 'worker'::regnamespace")
    functions = {name for (name,) in rows}
    assert [(page, unknown) for page, names in named.items() if (unknown := names - functions)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestNames:
    """What any page calls by its name is there."""

    def test_commands(self, page: Path) -> None:
        wrong = [
            f"worker {verb} {option}"
            for verb, rest in commands(page.read_text(encoding="utf-8"))
            for option in [None, *re.findall(r"(?<!\S)--[a-z][a-z-]+", rest)]
            if verb not in VERBS or (option and option not in {*options(VERBS[verb]), "--help", "--version"})
        ]
        assert wrong == []

    def test_metrics(self, page: Path) -> None:
        named = set(re.findall(r"`(worker_[a-z_]+)", page.read_text(encoding="utf-8")))
        assert {name for name in named if name not in METRICS and not name.startswith(NO_METRIC)} == set()

    def test_settings(self, page: Path) -> None:
        for text in re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            written = tomllib.loads(text)
            assert set(written) - set(shape.keys(Config)) - set(shape.keys(JobType)) == set(), text
            for name, job in written.get("job", {}).items():
                assert set(job) - set(shape.keys(JobType)) == set(), name


def texts() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        yield page.name, page.read_text(encoding="utf-8")


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Every `worker VERB …` of a page, in backticks or in a block of commands, with the rest of its line."""
    spans = re.findall(r"(?<!`)`worker ([^`]+)`(?!`)", text)
    for block in re.findall(r"^```(?:sh|shell|bash|console)?[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        spans += re.findall(r"^(?:\$ )?worker ([a-z][^|#\n]*)", block, re.MULTILINE)
    for span in spans:
        words = [word for word in span.split() if not word.startswith(("-", "/", "…"))]
        two = " ".join(words[:2])
        if words and re.fullmatch(r"[a-z]+", words[0]):
            yield (two if two in VERBS else words[0]), span


def test_every_page_is_linked_from_the_front() -> None:
    front = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT).as_posix() for page in PAGES if "decisions" not in page.parts]
    assert [page for page in pages if page != "README.md" and f"]({page}" not in front] == []
