"""The opt-in wrapper public.enqueue_job, as PostgREST calls it: a tenant's role and the claims of its JWT."""

import json
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tests.sql.conftest import Queue, refused
from tests.sql.test_roles import claims
from worker.migrations import sql_root

Session = Callable[..., Awaitable[Queue]]
CALL = "select public.enqueue_job(type => $1, payload => $2)"


async def call(queue: Queue, job_type: str, **payload: object) -> int:
    return await queue.db.fetchval(CALL, job_type, json.dumps(payload))


@pytest.fixture
async def tenant(queue: Queue, session: Session) -> Queue:
    for _ in range(2):  # it may be applied again
        await queue.db.execute((sql_root() / "optional" / "public_enqueue_job.sql").read_text(encoding="utf-8"))
    await queue.declare("mail", producers=["app", "tenant"])
    await queue.declare("report", producers=["app", "tenant"], unique_key="one")
    await queue.declare("internal")
    return await claims(await session("tenant"), tenant_id="t1")


async def test_a_tenant_enqueues_for_itself(queue: Queue, tenant: Queue) -> None:
    row = await queue.row(await call(tenant, "mail", to="ann"))
    who = await tenant.db.fetchval("select current_user")
    assert (row["tenant_id"], row["payload"], row["enqueued_by"]) == ("t1", '{"to": "ann"}', who)


async def test_the_payload_may_be_left_out(queue: Queue, tenant: Queue) -> None:
    assert (await queue.row(await tenant.db.fetchval("select public.enqueue_job('mail')")))["payload"] == "{}"


async def test_a_held_key_answers_with_its_holder(tenant: Queue) -> None:
    assert await call(tenant, "report") == await call(tenant, "report")


async def test_only_types_for_tenants(tenant: Queue) -> None:
    for job_type in ("internal", "undeclared"):
        with refused("WK002", job_type):
            await call(tenant, job_type)


async def test_no_other_tenant(tenant: Queue) -> None:
    with refused("WK004"):
        await call(tenant, "mail", tenant_id="t2")


async def test_nobody_without_a_claim(queue: Queue, tenant: Queue, session: Session) -> None:
    with refused("WK004"):
        await call(await session("tenant"), "mail")
    assert await queue.count() == 0


async def test_it_lends_no_rights(tenant: Queue, session: Session) -> None:
    for role in ("reader", "nobody"):
        someone = await claims(await session(role), tenant_id="t1")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await call(someone, "mail")


async def test_an_application_may_use_it_for_all_types(queue: Queue, tenant: Queue, session: Session) -> None:
    job = await call(await session("app"), "internal", tenant_id="t9")
    assert (await queue.row(job))["tenant_id"] == "t9"


async def test_uninstall_takes_it_along_and_no_other_of_that_name(queue: Queue, tenant: Queue) -> None:
    script = (sql_root() / "uninstall.sql").read_text(encoding="utf-8")
    await queue.db.execute(script)
    assert await queue.db.fetchval("select to_regprocedure('public.enqueue_job(text, jsonb)')") is None
    await queue.db.execute("create function public.enqueue_job(text, jsonb) returns integer language sql as 'select 1'")
    await queue.db.execute(script)
    assert await queue.db.fetchval("select to_regprocedure('public.enqueue_job(text, jsonb)')") is not None
