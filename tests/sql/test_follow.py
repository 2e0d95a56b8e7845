"""What follows a job is inserted with its verdict; rows of one coalesced key make one call."""

import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.conftest import NOON, Queue, refused, verdict

GRAPH = {"name": "graph", "then": ["tell"], "then_failed": ["alarm"], "announces": "tags"}
PLAIN = {"name": "plain", "then": ["tell"], "then_failed": ["alarm"], "announces": "result"}
TELL = {"name": "tell"}
ALARM = {"name": "alarm"}
CALL = {"name": "call", "coalesce_key": "cache"}


async def step(queue: Queue, job: asyncpg.Record, name: str, *tags: str) -> None:
    """Write a step's mark."""
    await queue.db.fetchrow(
        "select * from worker.run_step($1, $2, $3, 'f', 'select null::jsonb', '{}', null, $4)",
        job["id"], job["claim"], name, list(tags),
    )  # fmt: skip


async def follows(queue: Queue, job_type: str = "tell") -> list[dict[str, Any]]:
    rows = await queue.db.fetch("select payload from worker.job_queue where job_type = $1 order by id", job_type)
    return [json.loads(row[0]) for row in rows]


@pytest.fixture
async def graph(queue: Queue) -> Queue:
    await queue.declare_all(GRAPH, PLAIN, TELL, ALARM, CALL)
    return queue


class TestThen:
    async def test_carries_the_tags_of_the_steps_and_the_parent(self, graph: Queue) -> None:
        id = await graph.enqueue("graph", {"tenant_id": "t"}, correlation_id="c")
        (job,) = await graph.take(types=["graph"])
        await step(graph, job, "one", "b", "a")
        await step(graph, job, "two", "b")
        await graph.settle(verdict(job))
        assert await follows(graph) == [
            {"tags": ["a", "b"], "parent": {"id": id, "job_type": "graph", "status": "completed"}}
        ]
        child = await graph.db.fetchrow("select * from worker.job_queue where job_type = 'tell'")
        assert (child["parent_id"], child["tenant_id"], child["correlation_id"]) == (id, "t", "c")

    @pytest.mark.parametrize("status", ["pending", "failed", "cancelled"])
    async def test_tags_of_what_was_done_go_out_whatever_became_of_the_attempt(self, graph: Queue, status: str) -> None:
        await graph.enqueue("graph")
        (job,) = await graph.take(types=["graph"])
        await step(graph, job, "one", "a")
        await graph.settle(verdict(job, status))
        assert [each["tags"] for each in await follows(graph)] == [["a"]]

    async def test_a_tag_is_announced_once(self, graph: Queue) -> None:
        await graph.enqueue("graph")
        (job,) = await graph.take(types=["graph"])
        await step(graph, job, "one", "a")
        await graph.settle(verdict(job, "pending"))
        (job,) = await graph.take(types=["graph"])
        await step(graph, job, "two", "b")
        await graph.settle(verdict(job))
        assert [each["tags"] for each in await follows(graph)] == [["a"], ["b"]]

    async def test_steps_that_are_cleared_are_announced_before(self, graph: Queue) -> None:
        await graph.enqueue("graph")
        (job,) = await graph.take(types=["graph"])
        await step(graph, job, "one", "a")
        await graph.settle(verdict(job, "pending", keep_steps=False, snoozed=True, counted=False))
        assert [each["tags"] for each in await follows(graph)] == [["a"]]
        assert await graph.count("worker.job_step") == 0

    async def test_nothing_without_tags(self, graph: Queue) -> None:
        await graph.enqueue("graph")
        (job,) = await graph.take(types=["graph"])
        await step(graph, job, "one")
        await graph.settle(verdict(job))
        assert await follows(graph) == []

    async def test_a_stale_verdict_announces_nothing(self, graph: Queue) -> None:
        await graph.enqueue("graph")
        (job,) = await graph.take(types=["graph"])
        await step(graph, job, "one", "a")
        assert await graph.settle(verdict(job)._replace(claim=0)) == {}
        assert await follows(graph) == []

    @pytest.mark.parametrize(("status", "sent"), [("completed", 1), ("pending", 0), ("failed", 0), ("skipped", 0)])
    async def test_a_job_without_tags_sends_its_result_on_completed(self, graph: Queue, status: str, sent: int) -> None:
        await graph.enqueue("plain")
        (job,) = await graph.take(types=["plain"])
        await graph.settle(verdict(job, status, result='{"n": 1}' if status == "completed" else None))
        assert [each["result"] for each in await follows(graph)] == [{"n": 1}] * sent

    async def test_a_result_too_large_to_send_stays_on_the_parent(self, graph: Queue) -> None:
        await graph.enqueue("plain")
        (job,) = await graph.take(types=["plain"])
        assert await graph.settle(verdict(job, result=json.dumps("x" * 65_000))) == {job["id"]: "completed"}
        assert [each.keys() for each in await follows(graph)] == [{"parent"}]

    async def test_a_failed_job_calls_then_failed_with_its_error(self, graph: Queue) -> None:
        await graph.enqueue("plain")
        (job,) = await graph.take(types=["plain"])
        await graph.settle(verdict(job, "failed", error="broken", reason="permanent"))
        assert [each["error"] for each in await follows(graph, "alarm")] == ["broken"]


class TestEnqueuedByHandlers:
    async def test_is_inserted_with_the_verdict_and_inherits(self, graph: Queue) -> None:
        id = await graph.enqueue("plain", tenant_id="t", correlation_id="c")
        (job,) = await graph.take(types=["plain"])
        sent = json.dumps([{"job_type": "call", "payload": {"n": 1}, "priority": 7}])
        await graph.settle(verdict(job, "skipped", follows=sent))
        child = await graph.db.fetchrow("select * from worker.job_queue where job_type = 'call'")
        assert (child["parent_id"], child["tenant_id"], child["correlation_id"]) == (id, "t", "c")
        assert (json.loads(child["payload"]), child["priority"]) == ({"n": 1}, 7)

    async def test_not_when_a_cancel_won(self, graph: Queue) -> None:
        id = await graph.enqueue("plain")
        (job,) = await graph.take(types=["plain"])
        await graph.db.execute("select worker.cancel($1)", id)
        await graph.settle(verdict(job, "pending", snoozed=True, follows='[{"job_type": "call"}]'))
        assert await follows(graph, "call") == []

    async def test_a_key_that_waits_is_kept_and_has_no_second_parent(self, graph: Queue) -> None:
        await graph.declare("once", unique_key="k")
        held = await graph.enqueue("once")
        await graph.enqueue("plain")
        (job,) = await graph.take(types=["plain"])
        await graph.settle(verdict(job, "skipped", follows='[{"job_type": "once", "payload": {}}]'))
        assert [id for (id,) in await graph.db.fetch("select id from worker.job_queue where job_type = 'once'")] == [
            held
        ]
        assert (await graph.row(held))["parent_id"] is None

    async def test_a_key_in_a_strangers_transaction_does_not_hold_up_the_settle(
        self, graph: Queue, second: asyncpg.Connection
    ) -> None:
        await graph.declare("once", unique_key="k")
        await graph.enqueue("plain")
        (job,) = await graph.take(types=["plain"])
        sent = verdict(job, "skipped", follows='[{"job_type": "once", "payload": {}}]')
        stranger = second.transaction()
        await stranger.start()
        await second.execute("select worker.enqueue('once')")
        with refused("55P03"):
            await graph.settle(sent)
        assert (await graph.row(job["id"]))["status"] == "running"
        await stranger.commit()
        assert await graph.settle(sent) == {job["id"]: "skipped"}
        assert len(await follows(graph, "once")) == 1


class TestCoalescing:
    async def test_rows_of_a_key_go_together_parked_and_backed_off_ones_too(self, graph: Queue) -> None:
        ids = [await graph.enqueue("call", {"tags": [n]}) for n in range(3)]
        assert sorted(job["id"] for job in await graph.take(1, types=["call"])) == ids

    async def test_one_call_at_a_time(self, graph: Queue) -> None:
        await graph.enqueue("call")
        held = await graph.take(types=["call"])
        late = await graph.enqueue("call")
        assert await graph.take(types=["call"]) == []
        await graph.settle(*map(verdict, held))
        assert [job["id"] for job in await graph.take(types=["call"])] == [late]

    async def test_what_a_partial_answer_left_goes_along_but_not_what_was_scheduled(self, graph: Queue) -> None:
        await graph.enqueue("call")
        (partly,) = await graph.take(types=["call"])
        await graph.settle(verdict(partly, "pending", delay=3600.0, error="207", payload='{"tags": ["left"]}'))
        await graph.db.execute("select worker.enqueue('call', delay => '1 hour')")
        new = await graph.enqueue("call")
        assert sorted(job["id"] for job in await graph.take(types=["call"])) == [partly["id"], new]

    @pytest.mark.parametrize("failed", [{"error": "503"}, {"snoozed": True}])
    async def test_after_a_call_that_failed_newcomers_wait_for_the_next(self, graph: Queue, failed: Any) -> None:
        """They would use up the attempts of all who wait."""
        await graph.clock(NOON)
        old = [await graph.enqueue("call") for _ in range(2)]
        call = await graph.take(1, types=["call"])
        await graph.settle(*(verdict(job, "pending", delay=60.0, **failed) for job in call))
        new = [await graph.enqueue("call") for _ in range(2)]
        for _ in range(2):
            assert await graph.take(types=["call"]) == []
        await graph.clock(NOON + timedelta(seconds=61))
        assert sorted(job["id"] for job in await graph.take(1, types=["call"])) == [*old, *new]

    async def test_another_key_does_not_wait(self, graph: Queue) -> None:
        await graph.enqueue("call", {"tenant_id": "a"})
        (job,) = await graph.take(types=["call"])
        await graph.settle(verdict(job, "pending", delay=60.0, error="503"))
        other = await graph.enqueue("call", {"tenant_id": "b"})
        assert [each["id"] for each in await graph.take(types=["call"])] == [other]

    async def test_tenants_do_not_share_a_call(self, graph: Queue) -> None:
        for tenant in "abab":
            await graph.enqueue("call", {"tenant_id": tenant})
        jobs = await graph.take(types=["call"])
        assert len(jobs) == 4
        assert await graph.count("worker.key_slot") == 2

    async def test_at_most_five_hundred(self, graph: Queue) -> None:
        await graph.enqueue_many("call", *({} for _ in range(600)))
        jobs = await graph.take(10, types=["call"])
        assert len(jobs) == 500
        await graph.settle(*map(verdict, jobs))
        assert len(await graph.take(10, types=["call"])) == 100

    async def test_a_retried_row_may_come_back_with_less(self, graph: Queue) -> None:
        id = await graph.enqueue("call", {"tags": ["a", "b"]})
        (job,) = await graph.take(types=["call"])
        await graph.settle(verdict(job, "pending", payload='{"tags": ["b"]}', error="207"))
        assert json.loads((await graph.row(id))["payload"]) == {"tags": ["b"]}

    async def test_no_slot_and_no_parked_row_stays_behind(self, graph: Queue) -> None:
        await graph.enqueue_many("call", *({} for _ in range(30)))
        while jobs := await graph.take(7, types=["call"]):
            await graph.settle(*map(verdict, jobs))
        assert set((await graph.statuses()).values()) == {"completed"}
        assert await graph.count("worker.key_slot") == 0
