"""The page of functions is made from the catalogue. Anew: WRITE_DOCS=1 pytest tests/sql/test_reference.py"""

import os

import asyncpg

from tests.sql.reference import reference
from tests.support import ROOT

PAGE = ROOT / "docs" / "sql-reference.md"


async def test_page_is_made_from_the_catalogue(connection: asyncpg.Connection) -> None:
    made = await reference(connection)
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(made, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == made, "WRITE_DOCS=1 pytest tests/sql/test_reference.py"
