"""The recipes of docs/enqueue.md, each run where its runtime is there; a skip says what could not be."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.heart import declare
from tests.support import ROOT

PAGE = (ROOT / "docs" / "enqueue.md").read_text(encoding="utf-8")
TYPES = r": (?:ClientBase|SupabaseClient|string|unknown|object|Promise<\w+>)"
LAST = """
    select job_type, payload, source, scheduled_at > worker.now() as later
    from worker.job_queue order by id desc limit 1
"""
# Clients whose packages are not here: what they would send, they print.
PG = "{ query: async (...sent) => { console.log(JSON.stringify(sent)); return { rows: [{ id: '1' }] }; } }"
SUPABASE = "{ rpc: async (...sent) => { console.log(JSON.stringify(sent)); return { data: 1, error: null }; } }"


def blocks(heading: str, language: str) -> list[str]:
    """The code of one language under one heading."""
    (section,) = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: its recipes were not run")
    return found


async def last(connection: asyncpg.Connection) -> tuple[str, Any, str | None, bool]:
    row = await connection.fetchrow(LAST)
    assert row is not None
    return row["job_type"], json.loads(row["payload"]), row["source"], row["later"]


async def shell(script: str, **environment: str) -> str:
    """Run a recipe for the shell, in the root of this project."""
    command = [tool("bash"), "-euo", "pipefail", "-c", script]
    ended = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


async def node(tmp_path: Path, module: str, script: str) -> Any:
    """Check a module's syntax, run a script that imports `enqueue` from it; answers with the JSON it prints."""
    tool("node")
    (tmp_path / "recipe.mjs").write_text(module, encoding="utf-8")
    (tmp_path / "run.mjs").write_text(f'import {{ enqueue }} from "./recipe.mjs";\n{script}\n', encoding="utf-8")
    await shell(f"node --check {tmp_path}/recipe.mjs")
    return json.loads(await shell(f"node {tmp_path}/run.mjs"))


def without_types(code: str) -> str:
    """Node before 22.6 runs no TypeScript: the annotations that these recipes use are taken out."""
    return re.sub(TYPES, "", re.sub(r"^import type .*\n", "", code, flags=re.MULTILINE))


async def test_psql(dsn: str, connection: asyncpg.Connection) -> None:
    tool("psql")
    plain, quoted = blocks("psql", "sh")
    assert await shell(plain, DATABASE_URL=dsn) == "1\n"
    assert await last(connection) == ("send_mail", {"to": "ann@example.org"}, None, False)
    assert await shell(quoted, DATABASE_URL=dsn, TO="o'hara@example.org") == "2\n"
    assert await last(connection) == ("send_mail", {"to": "o'hara@example.org"}, None, True)


async def test_triggers(connection: asyncpg.Connection) -> None:
    owner, writer = f"app_{uuid.uuid4().hex[:8]}", f"writer_{uuid.uuid4().hex[:8]}"
    await connection.execute(f"create role {owner} in role worker_enqueue; create role {writer}")
    try:
        await connection.execute(f"grant create on schema public to {owner}; set role {owner}")
        await connection.execute("create table public.orders (id bigserial primary key, email text)")
        each, many = blocks("A trigger", "sql")
        await connection.execute(each)
        await connection.execute(many)
        await connection.execute(
            f"grant insert on public.orders to {writer}; grant usage on sequence public.orders_id_seq to {writer}"
        )
        await connection.execute(f"reset role; set role {writer}")
        await connection.execute("insert into public.orders (email) values ('ann'), ('bob')")
        await connection.execute("reset role")
        jobs = await connection.fetch(
            "select job_type, payload::text, source, enqueued_by from worker.jobs order by job_type, id"
        )
        assert jobs == [
            ("index_order", '{"order": 1}', None, owner),
            ("index_order", '{"order": 2}', None, owner),
            ("send_mail", '{"to": "ann", "order": 1}', "order", owner),
            ("send_mail", '{"to": "bob", "order": 2}', "order", owner),
        ]
    finally:
        await connection.execute(f"reset role; drop owned by {owner}, {writer}; drop role {owner}, {writer}")


async def test_python(connection: asyncpg.Connection) -> None:
    (code,) = blocks("Python (asyncpg)", "python")
    scope: dict[str, Any] = {}
    exec(compile(code, "docs/enqueue.md", "exec"), scope)  # noqa: S102 - it is our own page
    await connection.execute("create table orders (id bigserial primary key, email text)")
    assert await scope["place_order"](connection, "ann") == 1
    assert await last(connection) == ("send_mail", {"order": 1, "to": "ann"}, None, True)


async def test_node_postgres(connection: asyncpg.Connection, tmp_path: Path) -> None:
    (code,) = blocks("TypeScript and JavaScript (node-postgres)", "ts")
    text, values = await node(tmp_path, without_types(code), f"await enqueue({PG}, 'send_mail', {{ to: 'ann' }});")
    assert await connection.fetchval(text, *values) == 1
    assert await last(connection) == ("send_mail", {"to": "ann"}, None, False)


@pytest.fixture
async def tenant(dsn: str, connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A session as PostgREST has it: the wrapper is installed, `authenticated` is the role, the JWT of tenant t1."""
    (install,) = blocks("Browsers and other clients of PostgREST", "sh")
    tool("psql")
    await shell(install, DATABASE_URL=dsn)
    role = f"authenticated_{uuid.uuid4().hex[:8]}"
    await connection.execute(f"create role {role} noinherit")
    (grant,) = blocks("Browsers and other clients of PostgREST", "sql")
    if connection.get_server_version().major < 16:
        grant = "grant worker_tenant to authenticated; alter role authenticated inherit;"
        assert grant in PAGE.replace("\n", " ")
    await connection.execute(re.sub(r"\bauthenticated\b", role, grant))
    await declare(connection, {"name": "send_mail", "producers": ["app", "tenant"]}, {"name": "internal"})
    session = await asyncpg.connect(dsn)
    await session.execute(f"set role {role}")
    await session.execute("select set_config('request.jwt.claims', $1, false)", json.dumps({"tenant_id": "t1"}))
    yield session
    await session.close()
    await connection.execute(f"drop role {role}")


async def test_supabase_js(tenant: asyncpg.Connection, connection: asyncpg.Connection, tmp_path: Path) -> None:
    (code,) = blocks("supabase-js", "ts")
    name, given = await node(tmp_path, without_types(code), f"await enqueue({SUPABASE}, 'send_mail', {{ to: 'ann' }});")
    assert await rpc(tenant, name, given) == 1
    assert await last(connection) == ("send_mail", {"to": "ann"}, None, False)


async def test_fetch(tenant: asyncpg.Connection, connection: asyncpg.Connection, tmp_path: Path) -> None:
    (code,) = blocks("Plain fetch", "js")
    async with postgrest(tenant) as base:
        call = f"enqueue('{base}', 'token', "
        assert await node(tmp_path, code, f"console.log(await {call}'send_mail', {{ to: 'ann' }}));") == 1
        refused = f"await {call}'internal', {{}}).catch((error) => console.log(JSON.stringify(error.message)));"
        assert await node(tmp_path, code, refused) == "WK002: tenants may not enqueue internal"
    assert await last(connection) == ("send_mail", {"to": "ann"}, None, False)


async def rpc(session: asyncpg.Connection, name: str, given: dict[str, Any]) -> Any:
    """Call a function of the schema public by the names of its arguments, as PostgREST does."""
    named = ", ".join(f"{key} => ${number}" for number, key in enumerate(given, start=1))
    values = [value if isinstance(value, str) else json.dumps(value) for value in given.values()]
    return await session.fetchval(f"select public.{name}({named})", *values)


@asynccontextmanager
async def postgrest(session: asyncpg.Connection) -> AsyncIterator[str]:
    """The few lines of PostgREST that the recipe needs."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
        assert re.search(r"^authorization: Bearer token\r$", head, re.IGNORECASE | re.MULTILINE)
        path = re.match(r"POST /rest/v1/rpc/(\w+) HTTP", head)
        assert path is not None
        try:
            status, body = "200 OK", await rpc(session, path[1], json.loads(await reader.readexactly(length)))
        except asyncpg.PostgresError as error:
            status, body = "400 Bad Request", {"code": error.sqlstate, "message": error.args[0]}
        text = json.dumps(body).encode()
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n".encode() + text)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_every_recipe_has_a_test() -> None:
    code = re.findall(r"^```(\w+)$", PAGE, re.MULTILINE)
    assert sorted(code) == sorted(["sh", "sh", "sql", "sql", "python", "ts", "sh", "sql", "ts", "js"])
