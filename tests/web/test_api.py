"""The JSON API over a real socket and a real database: what is taken, what is answered, and who did it."""

import json
import uuid

import pytest

from tests.heart import enqueue
from tests.web.site import ALL, READ, WRITE, site_config, standing

DECLARED = [
    {"name": "work", "digest": "1"},
    {"name": "once", "digest": "1", "unique_key": "k", "unique_while": "active"},
    {"name": "full", "digest": "1", "backlog": {"max": 1, "then": "refuse"}},
]


@pytest.fixture
async def side(tmp_path, dsn, connection):
    await connection.execute("select worker.declare($1::jsonb)", json.dumps(DECLARED))
    async with standing(site_config(tmp_path, dsn)) as found:
        yield found


async def failed(connection, **columns):
    """A job that failed."""
    job = await enqueue(connection, "work", columns.get("payload"))
    await connection.execute(
        "update worker.job_queue set status = 'failed', queued = false, trouble = true, held_key = null, attempt = 1,"
        " finished_at = worker.now(), finish_reason = 'exhausted', errors = $2::jsonb where id = $1",
        job, '[{"attempt": 1, "message": "password=hunter2 was wrong"}]',
    )  # fmt: skip
    return job


async def test_enqueue_answers_with_the_job_and_names_who_it_was(side, connection):
    answer = await side.post("/api/v1/jobs", {"job_type": "work", "payload": {"n": 12345678901234567890123}}, key=WRITE)
    assert (answer.status_code, answer.json()["created"]) == (201, True)
    job = answer.json()["id"]
    assert answer.headers["location"] == f"/api/v1/jobs/{job}"
    row = await connection.fetchrow("select payload::text, status from worker.job_queue where id = $1", job)
    assert tuple(row) == ('{"n": 12345678901234567890123}', "pending")
    event = await connection.fetchrow("select event, actor from worker.job_event where job_id = $1", job)
    assert tuple(event) == ("enqueue", "web:producer")


async def test_a_job_is_part_of_the_trace_of_who_enqueued_it(side, connection):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for given in (trace, "no trace", ""):
        await side.post("/api/v1/jobs", {"job_type": "work"}, traceparent=given)
    rows = await connection.fetch("select traceparent from worker.job_queue order by id")
    assert [carried for (carried,) in rows] == [trace, None, None]


async def test_a_held_key_is_kept_refused_or_replaced(side):
    first = (await side.post("/api/v1/jobs", {"job_type": "once"})).json()["id"]
    kept = await side.post("/api/v1/jobs", {"job_type": "once"})
    assert (kept.status_code, kept.json()) == (200, {"id": first, "created": False})
    refused = await side.post("/api/v1/jobs", {"job_type": "once", "on_conflict": "refuse"})
    assert (refused.status_code, refused.json()["code"], refused.json()["holder"]) == (409, "key_held", first)
    assert refused.headers["content-type"] == "application/problem+json"
    replaced = await side.post("/api/v1/jobs", {"job_type": "once", "payload": {"a": 1}, "on_conflict": "replace"})
    assert (replaced.status_code, replaced.json()["id"]) == (200, first)


SHAPES = [
    ({}, "job_type"),
    ({"job_type": "Work"}, "job_type"),
    ({"job_type": "work", "payload": []}, "payload"),
    ({"job_type": "work", "priority": True}, "priority"),
    ({"job_type": "work", "priority": 1001}, "priority"),
    ({"job_type": "work", "priority": "5"}, "priority"),
    ({"job_type": "work", "delay": -1}, "delay"),
    ({"job_type": "work", "scheduled_at": "2026-01-01T00:00:00"}, "scheduled_at"),
    ({"job_type": "work", "nonsense": 1}, "nonsense"),
    ({"job_type": "work", "payload": {"a": "\u0000"}}, "payload"),
]


async def test_what_has_another_shape_is_refused_with_the_place(side):
    for body, at in SHAPES:
        answer = await side.post("/api/v1/jobs", body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), body
        assert at in answer.json()["faults"][0]["at"], body


NO_JSON = ["", "{", "[]", '{"job_type": NaN}', '{"job_type": "work", "payload": {"a": NaN}}', '{"job_type": "\\ud800"}',
     '{"job_type": "work", "payload": ' + '{"a":' * 5000 + "1" + "}" * 5001, "\xff"]  # fmt: skip


async def test_what_is_no_json_is_refused(side):
    for text in NO_JSON:
        sent = {"content": text.encode("latin-1"), "headers": {"Content-Type": "application/json"}}
        answer = await side.ask("POST", "/api/v1/jobs", ALL, **sent)
        assert answer.status_code == 422, (text[:100], answer.text)


REFUSED = [
    ({"job_type": "work", "payload": {"a": "x" * 70_000}}, 422, "invalid_job"),
    ({"job_type": "work", "tenant_id": "a", "payload": {"tenant_id": "b"}}, 403, "other_tenant"),
    ({"job_type": "work", "scheduled_at": "9999-01-01T00:00:00Z"}, 422, "invalid_job"),
    ({"job_type": "work", "payload": {"a": "x" * 400_000}}, 413, "too_large"),
]


async def test_what_the_database_refuses_has_a_code(side):
    for body, status, code in REFUSED:
        answer = await side.post("/api/v1/jobs", body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


async def test_a_full_backlog(side):
    assert (await side.post("/api/v1/jobs", {"job_type": "full"})).status_code == 201
    answer = await side.post("/api/v1/jobs", {"job_type": "full"})
    assert (answer.status_code, answer.json()["code"]) == (429, "backlog_full")


async def test_pages_of_a_list_are_all_jobs_once(side, connection):
    made = [await enqueue(connection, "work", tenant_id=f"t{n % 2}") for n in range(7)]
    seen, before = [], None
    for _ in range(4):
        page = (await side.get(f"/api/v1/jobs?limit=3{f'&before={before}' if before else ''}", READ)).json()
        seen += [job["id"] for job in page["jobs"]]
        before = page["next"]
        if before is None:
            break
    assert seen == made[::-1]
    ones = (await side.get("/api/v1/jobs?tenant=t1&status=pending&type=work", READ)).json()["jobs"]
    assert [job["id"] for job in ones] == made[1::2][::-1]
    assert (await side.get("/api/v1/jobs?type=other", READ)).json()["jobs"] == []
    assert all("payload" not in job for job in ones)


async def test_a_list_that_cannot_be_asked_for(side):
    for query in ("limit=0", "limit=201", "status=odd", "before=0", "since=yesterday", "since=1", "odd=1"):
        assert (await side.get(f"/api/v1/jobs?{query}")).status_code == 422, query


async def test_one_job_in_full_without_its_secrets(side, connection):
    job = await failed(connection, payload={"api_key": "abc", "name": "x"})
    told = (await side.get(f"/api/v1/jobs/{job}", READ)).json()
    assert (told["payload"], told["status"], told["explain"]["code"]) == (None, "failed", "done")
    assert (told["steps"], told["children"]) == ([], [])
    assert "hunter2" not in str(told)
    told = (await side.get(f"/api/v1/jobs/{job}?payload=true", READ)).json()
    assert told["payload"] == {"api_key": "***", "name": "x"}
    none = await side.get("/api/v1/jobs/4711", READ)
    assert (none.status_code, none.json()["code"]) == (404, "no_such_job")


async def test_cancel_and_retry_name_who_it_was(side, connection):
    job = await enqueue(connection, "work")
    assert (await side.post(f"/api/v1/jobs/{job}/cancel", {"reason": "not now"})).json()["status"] == "cancelled"
    assert (await side.post(f"/api/v1/jobs/{job}/cancel")).json()["status"] == "cancelled"
    assert (await side.post(f"/api/v1/jobs/{job}/retry")).json()["status"] == "pending"
    again = await side.post(f"/api/v1/jobs/{job}/retry", {"fresh": True})
    assert (again.status_code, again.json()["code"]) == (409, "not_retryable")
    events = await connection.fetch("select event, actor from worker.job_event where job_id = $1 order by id", job)
    assert [tuple(each) for each in events] == [("cancel", "web:admin"), ("retry", "web:admin")]


async def test_many_are_shown_before_they_are_retried(side, connection):
    jobs = [await failed(connection) for _ in range(3)]
    chosen = {"filter": {"type": "work", "error": "was wrong"}}
    shown = (await side.post("/api/v1/jobs/bulk/retry", chosen)).json()
    assert (shown["dry_run"], shown["count"], shown["more"]) == (True, 3, False)
    done = (await side.post("/api/v1/jobs/bulk/retry", chosen | {"dry_run": False})).json()
    assert (done["done"], done["refused"], done["more"]) == (3, 0, False)
    states = await connection.fetch("select status from worker.job_queue where id = any ($1)", jobs)
    assert {row[0] for row in states} == {"pending"}
    ended = (await side.post("/api/v1/jobs/bulk/cancel", {"filter": {"ids": jobs}, "dry_run": False})).json()
    assert ended["done"] == 3
    actors = await connection.fetch("select distinct actor from worker.job_event where event like 'bulk%'")
    assert [row[0] for row in actors] == ["web:admin"]
    assert (await side.post(f"/api/v1/jobs/bulk/{ended['bulk']}")).json()["more"] is False
    assert (await side.post("/api/v1/jobs/bulk/4711")).json()["code"] == "no_such_bulk"
    assert (await side.post("/api/v1/jobs/bulk/retry", {"filter": {}})).json()["code"] == "invalid"


async def test_types_and_schedules(side, connection):
    await enqueue(connection, "work")
    types = {each["job_type"]: each for each in (await side.get("/api/v1/types", READ)).json()["types"]}
    assert (types["work"]["due"], types["work"]["paused"]) == (1, False)
    assert (await side.post("/api/v1/types/work/pause")).json() == {"name": "work", "changed": True}
    assert (await side.post("/api/v1/types/work/pause")).json()["changed"] is False
    assert (await side.post("/api/v1/types/work/resume")).json()["changed"] is True
    assert (await side.post("/api/v1/types/nobodys/pause")).json()["code"] == "no_such_type"
    assert (await side.get("/api/v1/schedules", READ)).json() == {"schedules": []}
    for verb in ("run", "pause", "resume"):
        assert (await side.post(f"/api/v1/schedules/nightly/{verb}")).json()["code"] == "no_such_schedule"
    stats = (await side.get("/api/v1/stats?hours=1&minutes=5", READ)).json()
    assert (stats["daemons"], stats["trends"]) == ([], [])


async def test_the_sums_are_the_same_for_all_who_ask_at_once(side, connection):
    await connection.execute(
        "insert into worker.trend (job_type, at, completed, waits, runs) values ('mail', worker.now(), 3,"
        " array_fill(1, array[19]), array_fill(1, array[19]))"
    )
    asked = [(await side.get("/api/v1/stats?hours=1&minutes=5", READ)).json() for _ in range(3)]
    assert [(each["job_type"], each["spans"][0]["completed"]) for each in asked[0]["trends"]] == [("mail", 3)]
    assert [each["trends"] for each in asked] == [asked[0]["trends"]] * 3


async def test_a_scope_is_not_another(side, connection):
    job = await enqueue(connection, "work")
    for key, method, path, body in (
        (READ, "POST", "/api/v1/jobs", {"job_type": "work"}),
        (READ, "POST", f"/api/v1/jobs/{job}/cancel", None),
        (WRITE, "POST", f"/api/v1/jobs/{job}/retry", None),
        (WRITE, "POST", "/api/v1/jobs/bulk/cancel", {"filter": {"type": "work"}, "dry_run": False}),
        (WRITE, "POST", "/api/v1/types/work/pause", None),
    ):
        answer = await side.ask(method, path, key, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope"), path
    assert await connection.fetchval("select status from worker.job_queue where id = $1", job) == "pending"


async def test_the_database_away_is_said_and_nothing_else(tmp_path, dsn):
    async with standing(site_config(tmp_path, f"postgresql://postgres@/x?host={tmp_path}")) as side:
        answer = await side.get("/api/v1/jobs")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert str(tmp_path) not in answer.text


async def test_without_the_api_there_is_none(tmp_path, dsn):
    async with standing(site_config(tmp_path, dsn, "api = false")) as side:
        assert (await side.get("/api/v1/jobs", None)).status_code == 404
        assert (await side.get("/healthz", None)).status_code == 200


async def test_a_role_that_may_not_is_named(tmp_path, dsn, connection):
    role = f"web_only_{uuid.uuid4().hex[:8]}"
    await connection.execute(f"create role {role} login in role worker_run")
    try:
        where = dsn.replace("postgres@", f"{role}@", 1)
        if where == dsn:
            pytest.skip("the address of the tests' server names no user without a password")
        async with standing(site_config(tmp_path, where)) as side:
            assert (await side.get("/api/v1/jobs")).status_code == 200
            job = await enqueue(connection, "work")
            answer = await side.post(f"/api/v1/jobs/{job}/cancel")
            assert (answer.status_code, answer.json()["code"]) == (503, "not_granted")
    finally:
        await connection.execute(f"drop role {role}")
