"""The pages name functions, views, SQLSTATEs and commands that exist, and none is missing."""

import re

import asyncpg

from tests.support import ROOT

SQL_PAGE = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "sql" / "functions").glob("*.sql")))


async def test_every_name_of_the_sql_page_exists(connection: asyncpg.Connection) -> None:
    named = set(re.findall(r"`worker\.(\w+)", SQL_PAGE)) - {"stats_window", "tenant"}  # settings, not objects
    functions = await connection.fetch("select proname from pg_proc where pronamespace = 'worker'::regnamespace")
    relations = await connection.fetch("select relname from pg_class where relnamespace = 'worker'::regnamespace")
    assert named - {row[0] for row in [*functions, *relations]} == set()


def test_every_sqlstate_is_on_the_page_and_raised() -> None:
    assert set(re.findall(r"WK\d{3}", SQL_PAGE)) == set(re.findall(r"WK\d{3}", SOURCES))


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert dead == []
