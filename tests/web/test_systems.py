"""Routes of the shipped systems: the first system's shapes, /api/sync, game sync."""

import uuid

import orjson
import pytest

from tests.jobs import games, stats_database, syncs
from tests.support import ROOT
from tests.web.site import ALL, KEYS, READ, WRITE, standing
from worker.config import load

STATS = (ROOT / "worker.toml").read_text(encoding="utf-8")


def configuration(folder, dsn, text):
    """`[http]` with the three keys before what the system declares."""
    file = folder / "http.toml"
    file.write_text(f'{text}\n[http]\nlisten = "127.0.0.1:0"\n{KEYS}', encoding="utf-8")
    return load(file, {"DATABASE_URL": dsn})


async def declared(connection, config):
    await connection.fetch("select * from worker.declare($1::jsonb)", orjson.dumps(config.declarations()).decode())
    return config


class TestStats:
    """The first system's five routes."""

    @pytest.fixture
    async def side(self, tmp_path, dsn, connection):
        await stats_database.install(connection)
        config = await declared(connection, configuration(tmp_path, dsn, STATS))
        async with standing(config) as found:
            yield found

    async def test_a_job_is_enqueued_and_listed_in_the_old_words(self, side, connection):
        tenant = str(uuid.uuid4())
        asked = {"triggeredBy": "post-match", "requestId": "r1", "tenantId": tenant, "matchId": 5}
        told = (await side.post("/api/admin/enqueue-stats-job", asked, key=WRITE)).json()
        assert (told["success"], told["jobId"].isdigit()) == (True, True)
        again = (await side.post("/api/admin/enqueue-stats-job", asked, key=WRITE)).json()
        assert again["jobId"] == told["jobId"]
        row = await connection.fetchrow(
            "select priority, correlation_id, source, tenant_id from worker.job_queue where id = $1", int(told["jobId"])
        )
        assert tuple(row) == (50, "r1", "match", tenant)
        events = await connection.fetch("select actor, detail ->> 'kept' from worker.job_event order by id")
        assert [tuple(each) for each in events] == [("web:producer", None), ("web:producer", "true")]
        listed = (await side.get("/api/admin/background-jobs", READ)).json()
        assert listed["success"] is True
        (job,) = listed["data"]
        assert (job["id"], job["status"], job["priority"], job["retry_count"]) == (told["jobId"], "queued", 2, 0)
        assert job["job_payload"]["matchId"] == 5
        assert (await side.get(f"/api/admin/background-jobs?tenantId={uuid.uuid4()}", READ)).json()["data"] == []

    async def test_what_is_missing_is_said(self, side):
        right = {"triggeredBy": "admin", "requestId": "r1", "tenantId": "t"}
        for wrong in ({"triggeredBy": "cron"}, right | {"triggeredBy": "me"}, {**right, "tenantId": None}):
            assert (await side.post("/api/admin/enqueue-stats-job", wrong)).status_code == 422
        told = (await side.get("/api/admin/enqueue-stats-job", READ)).json()
        assert (told["status"], told["supportedTriggers"]) == ("healthy", ["post-match", "admin", "cron"])

    async def test_a_retry_is_one(self, side, connection):
        asked = {"triggeredBy": "admin", "requestId": "r1", "tenantId": str(uuid.uuid4())}
        job = (await side.post("/api/admin/enqueue-stats-job", asked)).json()["jobId"]
        await connection.execute("select worker.cancel($1)", int(job))
        told = await side.post("/api/admin/enqueue-stats-job", {**asked, "retryOf": job})
        assert told.json()["jobId"] == job
        assert (await side.post("/api/admin/enqueue-stats-job", {**asked, "retryOf": job})).status_code == 409
        assert (await side.post("/api/admin/enqueue-stats-job", {**asked, "retryOf": "4711"})).status_code == 404

    async def test_all_clubs_and_health(self, side, connection):
        assert (await side.post("/api/superadmin/trigger-all-stats", key=WRITE)).status_code == 403
        told = (await side.post("/api/superadmin/trigger-all-stats")).json()
        clubs = await connection.fetchval("select count(*) from club.active_tenants()")
        assert told["details"] == {"total": clubs, "enqueued": clubs, "failed": 0}
        health = (await side.get("/api/admin/system-health", READ)).json()["health"]
        assert (health["overall_status"], health["systems"]["database"]["status"]) == ("unhealthy", "healthy")
        assert health["recommendations"] == ["no worker runs stats_update"]


class TestSync:
    """/api/sync."""

    @pytest.fixture
    async def side(self, tmp_path, dsn, connection):
        path = syncs.configure(tmp_path)
        await syncs.install(connection, dsn, path)
        async with standing(configuration(tmp_path, dsn, path.read_text(encoding="utf-8"))) as found:
            yield found

    async def test_a_user_s_sync_from_start_to_end(self, side, connection):
        who = {"user_id": syncs.USER}
        refused = await side.post("/api/sync/start", who, key=WRITE)
        assert (refused.status_code, refused.json()["code"]) == (400, "no_token")
        await syncs.connect(connection)
        begun = await side.post("/api/sync/start", who, key=WRITE)
        assert begun.status_code == 202
        sync = begun.json()["sync_id"]
        second = await side.post("/api/sync/force", who)
        assert (second.status_code, second.json()["code"], second.json()["holder"]) == (409, "sync_running", sync)
        of = f"?user_id={syncs.USER}"
        assert (await side.get(f"/api/sync/status{of}", READ)).json()["status"] == "running"
        assert (await side.get(f"/api/sync/status/{sync}{of}", READ)).json()["sync_id"] == sync
        assert (await side.get(f"/api/sync/status/{sync}?user_id=bob", READ)).status_code == 404
        assert len((await side.get(f"/api/sync/active{of}", READ)).json()["syncs"]) == 1
        assert (await side.get(f"/api/sync/results/{sync}{of}", READ)).json()["orders"] == 0
        assert (await side.get("/api/sync/queue-status", READ)).json()["types"]["sync"]["waiting"] == 1
        ended = await side.post(f"/api/sync/cancel/{sync}", who)
        assert ended.json()["status"] == "cancelled"
        assert (await side.post("/api/sync/cancel", who)).status_code == 404
        assert (await side.get(f"/api/sync/history{of}&status=canceled", READ)).json()["syncs"][0]["sync_id"] == sync
        assert (await side.get(f"/api/sync/history{of}&status=odd", READ)).status_code == 400
        assert (await side.get(f"/api/sync/statistics{of}", READ)).json()["cancelled"] == 1
        events = await connection.fetch("select event, actor from worker.job_event where job_id = $1 order by id", sync)
        assert [tuple(each) for each in events] == [("enqueue", "web:producer"), ("cancel", "web:admin")]

    async def test_several_and_by_force(self, side, connection):
        for user in ("ann", "bob"):
            await syncs.connect(connection, user)
        told = await side.post(
            "/api/sync/bulk", {"syncs": [{"user_id": "ann"}, {"user_id": "eve"}, {"user_id": "bob"}]}
        )
        assert [row["code"] for row in told.json()["syncs"]] == [None, "SY001", None]
        assert (await side.post("/api/sync/bulk", {"syncs": [{"user_id": "ann"}] * 6})).status_code == 422
        cleared = (await side.post("/api/sync/force-clear", {"user_id": "ann"})).json()["syncs"]
        assert [(row["was"], row["is_now"]) for row in cleared] == [("pending", "cancelled")]
        assert (await side.post("/api/sync/force-clear", {"user_id": "ann"}, key=WRITE)).status_code == 403
        assert (await side.post("/api/sync/cleanup", {})).json()["syncs"] == 0


class TestGames:
    """The original's paths."""

    @pytest.fixture
    async def side(self, tmp_path, dsn, connection):
        await games.install(connection)
        text = 'environment = "test"\n[job.sync_games]\npython = "tests.sample_jobs:done"\n'
        async with standing(configuration(tmp_path, dsn, text)) as found:
            yield found

    async def test_a_sync_from_start_to_end(self, side, connection):
        user = await games.user(connection)
        begun = await side.post(
            f"/sync-games/{user}", {"platform": "lichess", "filters": {"kind": ["blitz"]}}, key=WRITE
        )
        assert (begun.status_code, begun.json()["status"]) == (202, "pending"), begun.text
        sync = begun.json()["sync_job_id"]
        second = await side.post(f"/sync-games/{user}", {"platform": "lichess"})
        assert (second.status_code, second.json()["holder"]) == (409, sync)
        assert (await side.get(f"/sync-status/{sync}", READ)).json()["status"] == "pending"
        assert [each["id"] for each in (await side.get(f"/sync-jobs/{user}", READ)).json()["sync_jobs"]] == [sync]
        assert (await side.get(f"/sync-jobs/{uuid.uuid4()}", READ)).status_code == 404
        assert (await side.get("/sync-status/none", READ)).status_code == 422
        assert (await side.post(f"/sync-games/{user}", {"platform": "chess.org"})).status_code == 422
        assert (await side.post(f"/sync-games/{uuid.uuid4()}", {"platform": "lichess"})).status_code == 404
        assert (await side.post("/admin/cleanup-stuck-sync-jobs")).json() == {"ended": []}
        assert (await side.post(f"/admin/fix-specific-sync-job/{sync}", key=READ)).status_code == 403
        assert (await side.post(f"/admin/fix-specific-sync-job/{sync}")).json() == {"ended": [sync]}
        assert (await side.get(f"/sync-status/{sync}", READ)).json()["status"] == "failed"


async def test_a_system_that_is_not_declared_has_no_routes(tmp_path, dsn):
    async with standing(configuration(tmp_path, dsn, 'environment = "test"')) as side:
        for path in ("/api/admin/background-jobs", "/api/sync/queue-status", f"/sync-status/{uuid.uuid4()}"):
            assert (await side.get(path, ALL)).status_code == 404
