"""The edition of a schema (sql/functions/05_edition.sql): which release it is of, and which ones it still serves."""

import re
from typing import NamedTuple

import asyncpg

from worker.errors import SchemaError

_TOLD = re.compile(r"function worker\.edition\(.*?select (\d+), (\d+)", re.DOTALL)


class Edition(NamedTuple):
    """Grows by one with each release that changes the schema; `serves` is the oldest one that works on it."""

    number: int
    serves: int

    def follows(self, release: "Edition") -> bool:
        """Whether a schema of this edition is later than a release.

        Raises:
            SchemaError: it is, and it does not serve that release any more.
        """
        if self.serves > release.number:
            raise SchemaError(
                f"the schema is too new: it is of edition {self.number} and serves releases from edition"
                f" {self.serves} on; this one is of edition {release.number}"
            )
        return self.number > release.number


NONE = Edition(0, 0)  # from before there were editions


def told(text: str) -> Edition | None:
    """What a function file says, if it is the one that does."""
    found = _TOLD.search(text)
    return Edition(int(found[1]), int(found[2])) if found else None


async def found(connection: asyncpg.Connection) -> Edition:
    """That of the schema in the database."""
    if await connection.fetchval("select to_regprocedure('worker.edition()')") is None:
        return NONE
    row = await connection.fetchrow("select edition, serves from worker.edition()")
    assert row is not None
    return Edition(row["edition"], row["serves"])
