"""What `worker migrate` would run, as one script for psql."""

from collections.abc import Iterable, Iterator
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.migrations import SqlFile

_HEAD = """\
-- What `worker migrate` would run on this database, of which it changes nothing by itself. Run it with
--   psql -X -v ON_ERROR_STOP=1 -f FILE
-- Each numbered file is one transaction, all functions together are one, the declarations are the last.
set client_min_messages = warning;
"""
_RECORD = Template(
    "insert into worker.migration (name, digest) values ('$name', '$digest')\n"
    "  on conflict (name) do update set digest = excluded.digest, applied_at = clock_timestamp();\n"
)
_DECLARE = Template(
    "select worker.set_ring($ring);\nselect * from worker.declare($types::jsonb);\n"
    "select * from worker.declare_schedules($schedules::jsonb, $names);\n"
)


def script(
    pending: "Iterable[SqlFile]",
    functions: "Iterable[SqlFile]",
    *,
    ring: bool,
    types: str,
    schedules: str,
    names: "Iterable[str]",
) -> str:
    """The script: pending numbered files, all functions when any file is pending, then what is declared.

    Args:
        types, schedules: their declarations, as JSON.
        names: of the types.
    """
    pending = list(pending)
    parts = [_HEAD]
    parts += [_transaction("", [file]) for file in pending if file.numbered]
    if pending:
        parts.append(_transaction("set local role worker_owner;\n", functions))
    parts.append(
        _DECLARE.substitute(
            ring="true" if ring else "false",
            types=_literal(types),
            schedules=_literal(schedules),
            names=_literal("{" + ",".join(names) + "}"),
        )
    )
    return "\n".join(parts)


def _transaction(head: str, files: "Iterable[SqlFile]") -> str:
    return f"begin;\n{head}{''.join(_lines(files))}commit;\n"


def _lines(files: "Iterable[SqlFile]") -> "Iterator[str]":
    for file in files:
        yield f"\n-- sql/{file.name}\n{file.text}\n{_RECORD.substitute(name=file.name, digest=file.digest)}"


def _literal(text: str) -> str:
    """As a literal of SQL, whatever standard_conforming_strings says."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"e'{escaped}'"
