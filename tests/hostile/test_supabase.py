"""A project as Supabase makes it: its roles, its default grants before our migration, its API's way to become a user.

The names are theirs; `project` stands for their `postgres`, which is no superuser, makes roles and passes by policies.
"""

import json
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from tests.sql.conftest import refused
from worker.migrations import migrate, sql_root

API = ("anon", "authenticated", "service_role")
ROLES = """
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit in role anon, authenticated, service_role;
create role project login createrole bypassrls;
grant anon, authenticated, service_role to project with admin option;
"""
# What the image sets for `public`, and, worse than that, the same for every schema.
DEFAULTS = """
grant usage on schema public to anon, authenticated, service_role;
grant create on schema public to project;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
alter default privileges for role project in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role project in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges for role project in schema public grant all on sequences to anon, authenticated, service_role;
alter default privileges for role project grant all on tables to anon, authenticated, service_role;
alter default privileges for role project grant all on functions to anon, authenticated, service_role;
alter default privileges for role project grant all on sequences to anon, authenticated, service_role;
alter default privileges for role project grant all on types to anon, authenticated, service_role;
alter default privileges for role project grant all on schemas to anon, authenticated, service_role;
"""
LEAKS = """
select format('%s %s', who, told) from unnest($1::text[]) who, (
  select 'schema worker' as told, nspacl as acl, nspowner as owner, 'n'::"char" as kind from pg_namespace
    where nspname = 'worker'
  union all select c.oid::regclass::text, c.relacl, c.relowner, case c.relkind when 'S' then 's' else 'r' end::"char"
    from pg_class c where c.relnamespace = 'worker'::regnamespace and c.relkind in ('r', 'v', 'S')
  union all select p.oid::regprocedure::text, p.proacl, p.proowner, 'f' from pg_proc p
    where p.pronamespace = 'worker'::regnamespace) object,
  aclexplode(coalesce(object.acl, acldefault(object.kind, object.owner))) as given
where given.grantee = who::regrole order by 1
"""
ATTEMPTS = (
    "select count(*) from worker.job_queue",
    "select count(*) from worker.jobs",
    "select worker.now()",
    "select worker.enqueue('mail')",
    "select worker.retry(1)",
    "select worker.settle(1, '{}')",
    "insert into worker.job_queue (job_type) values ('mail')",
    "truncate worker.job_queue cascade",
)


@dataclass
class Project:
    """A database of such a project, migrated; connections are made to it."""

    dsn: str
    owner: asyncpg.Connection

    async def request(self, role: str, statement: str, **claims: object) -> object:
        """What PostgREST does for one request of the API."""
        api = await asyncpg.connect(self.dsn.replace("postgres@", "authenticator@", 1))
        try:
            async with api.transaction():
                await api.execute(f"set local role {role}")
                await api.execute(
                    "select set_config('request.jwt.claims', $1, true)", json.dumps({"role": role, **claims})
                )
                return await api.fetchval(statement)
        finally:
            await api.close()


@pytest.fixture
async def project(cluster, maintenance: asyncpg.Connection, template: str) -> AsyncIterator[Project]:
    if "DATABASE_URL" in os.environ:
        pytest.skip("roles of these names are made on our own server only")
    version = maintenance.get_server_version().major
    name = f"project_{uuid.uuid4().hex[:12]}"
    await maintenance.execute(ROLES)
    await maintenance.execute(f"create database {name}")
    dsn = cluster.dsn(name)
    owner = await asyncpg.connect(dsn)
    try:
        await owner.execute(f"grant create on database {name} to project")
        await owner.execute(DEFAULTS)
        # Here the roles of the worker were made by somebody else, for another database of this server.
        given = "with admin option" if version < 16 else "with admin true, inherit true, set true"
        await owner.execute(f"grant worker_owner to project {given}")
        for role in ("worker_run", "worker_enqueue", "worker_tenant", "worker_operate", "worker_read"):
            await owner.execute(f"grant {role} to project with admin option")
        await migrate(dsn.replace("postgres@", "project@", 1))
        yield Project(dsn, owner)
    finally:
        await owner.close()
        await maintenance.execute(f"drop database {name} with (force)")
        for role in ("project", "authenticator", *API):
            await maintenance.execute(f"drop owned by {role} cascade; drop role {role}")


async def test_default_grants_reach_nothing_of_ours(project: Project) -> None:
    assert await project.owner.fetch(LEAKS, list(API)) == []
    await project.owner.execute("create table public.theirs ()")  # the trap is set, and catches what is in public
    assert await project.owner.fetchval("select has_table_privilege('anon', 'public.theirs', 'truncate')")


async def test_no_role_of_the_api_gets_in(project: Project) -> None:
    for role in API:
        assert await project.request(role, "select current_user::text", tenant_id="t1") == role
        for statement in ATTEMPTS:
            with refused("42501", "schema worker"):
                await project.request(role, statement, tenant_id="t1")


async def test_the_wrapper_lets_in_users_who_are_tenants_and_nobody_else(project: Project) -> None:
    """docs/supabase.md, as it stands there; the wrapper itself lies in public, where everybody may call it."""
    where = project.dsn.replace("postgres@", "project@", 1)
    theirs = await asyncpg.connect(where)
    await theirs.execute((sql_root() / "optional" / "public_enqueue_job.sql").read_text(encoding="utf-8"))
    inherit = "with inherit true" if theirs.get_server_version().major >= 16 else ""
    await theirs.execute(f"grant worker_tenant to authenticated {inherit}")
    if not inherit:
        await theirs.execute("alter role authenticated inherit")
    await theirs.close()
    declared = [{"name": "mail", "producers": ["app", "tenant"], "digest": "1"}, {"name": "internal", "digest": "2"}]
    await project.owner.fetch("select worker.declare($1::jsonb)", json.dumps(declared))

    call = "select public.enqueue_job('mail', '{\"to\": \"ann\"}')"
    job = await project.request("authenticated", call, app_metadata={"tenant_id": "t1"})
    assert await project.owner.fetchval("select tenant_id from worker.job_queue where id = $1", job) == "t1"
    for role in ("anon", "service_role"):
        with refused("42501", "schema worker"):
            await project.request(role, call, tenant_id="t1")
    with refused("WK004"):
        await project.request("authenticated", call, user_metadata={"tenant_id": "t1"})
    with refused("WK004"):
        other = "select public.enqueue_job('mail', '{\"tenant_id\": \"t1\"}')"
        await project.request("authenticated", other, tenant_id="t2")
    with refused("WK002"):
        await project.request("authenticated", "select public.enqueue_job('internal')", tenant_id="t1")
    seen = "select count(*) from worker.jobs"
    assert await project.request("authenticated", seen, tenant_id="t1") == 1
    assert await project.request("authenticated", seen, tenant_id="t2") == 0
    assert await project.request("authenticated", seen) == 0
