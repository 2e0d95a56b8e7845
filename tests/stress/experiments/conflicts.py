"""D.2: deadlocks and lost races, of strangers with us and of steps with each other."""

import asyncio
import re
from collections import Counter
from contextlib import suppress

import asyncpg

from tests.stress.experiment import Report, experiment
from tests.stress.place import Place
from tests.stress.postgres import (
    DEFAULT_TERMS,
    FREE_JOBS,
    GRAPH_JOBS,
    KEYED_JOBS,
    errors_said,
    few_attempts,
    flowing,
    settle_all,
    stocked,
)
from tests.stress.workload import MIXED, create_steps

# Two steps of one job take the same two rows in opposite order, as those of every eighth job do; a third loses every
# fifth race. All have the default number of attempts.
RACING = """
[job.racing]
arguments = { job_id = "id" }
retry = { first = "10ms", max = "100ms" }
[job.racing.steps]
forth = { sql = "forth" }
back = { sql = "back" }
lost = { sql = "lost" }
"""
RACING_STEPS = """
    create table account (id integer primary key, amount bigint not null default 0);
    insert into account (id) select n from generate_series(0, 15) n;
    create function forth(job_id bigint) returns void language plpgsql as $$ begin
      perform evidence.step(job_id, 'forth', 0);
      update account set amount = amount + 1 where id = job_id % 8; perform pg_sleep(0.005);
      update account set amount = amount + 1 where id = 8 + job_id % 8;
    end $$;
    create function back(job_id bigint) returns void language plpgsql as $$ begin
      perform evidence.step(job_id, 'back', 0);
      update account set amount = amount + 1 where id = 8 + job_id % 8; perform pg_sleep(0.005);
      update account set amount = amount + 1 where id = job_id % 8;
    end $$;
    create function lost(job_id bigint) returns void language plpgsql as $$ begin
      perform evidence.step(job_id, 'lost', 0);
      if random() < 0.2 then raise 'lost a race' using errcode = '40001'; end if;
    end $$;
"""
RACING_JOBS = "select worker.enqueue('racing') from generate_series(1, 4)"
# What somebody's batch job does to our tables: rows one by one, the highest id first.
BACKWARDS = """
do $$
declare
  each bigint;
begin
  for each in select id from worker.job_queue where status = 'running' order by id desc limit 8 loop
    update worker.job_queue set progress = '{}' where id = each;
    perform pg_sleep(0.01);
  end loop;
  for each in select id from worker.process order by id desc loop
    update worker.process set version = version where id = each;
    perform pg_sleep(0.01);
  end loop;
end $$
"""
CANCEL_ONE = """
    select worker.cancel(id) from (
      select id from worker.job_queue where job_type = 'free' and status = 'running' order by id desc limit 1) one
"""
SHOWS = 0.03  # share of the racing jobs; 0.2 ** 4 by chance
SETTLES = 5  # deadlocks of which a settle was the victim


@experiment("22-deadlocks", own_server=True, nightly=100)
async def deadlocks(place: Place, report: Report) -> None:
    """Batches that lock our rows backwards, steps that lock each other, races lost; none may fail a job."""
    await place.connection.execute("alter system set deadlock_timeout = '20ms'")
    await place.connection.execute("select pg_reload_conf()")
    await create_steps(place)
    await place.connection.execute(RACING_STEPS)
    config = place.configure(few_attempts(MIXED) + RACING, DEFAULT_TERMS)
    await place.started(place.spawn(config), place.spawn(config))
    async with stocked(place, 80, FREE_JOBS, GRAPH_JOBS, KEYED_JOBS, RACING_JOBS):
        await flowing(place)
        strangers = [asyncio.create_task(_repeat(place, text)) for text in (BACKWARDS,) * 3 + (CANCEL_ONE,)]
        async with asyncio.timeout(90):
            while sum((found := _victims(place)).values()) < report.planned or found["worker.settle"] < SETTLES:
                await asyncio.sleep(0.5)
        for each in strangers:
            each.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)
    report.injected = sum(found.values())
    await settle_all(place, report)
    await _no_race_shows(place, report)
    report.figures |= {"victims": dict(found), **errors_said(place)}
    await place.judge(report)
    report.figures["deadlocks_a_thousand_jobs"] = round(1000 * report.injected / report.jobs, 1)


async def _repeat(place: Place, statement: str) -> None:
    connection = await asyncpg.connect(place.dsn)
    while True:
        with suppress(asyncpg.PostgresError):
            await connection.execute(statement)
        await asyncio.sleep(0.02)


def _victims(place: Place) -> Counter[str]:
    """Deadlocks so far, by the function of ours that was ended: what the server wrote after each."""
    ended = (place.server.data / "server.log").read_text(errors="replace").split("ERROR:  deadlock detected")[1:]
    said = (text.partition("STATEMENT:")[2].split("\n\t")[0][:200] for text in ended)
    return Counter(found[0] if (found := re.search(r"worker\.\w+", text)) else "a stranger" for text in said)


async def _no_race_shows(place: Place, report: Report) -> None:
    rescues = await place.connection.fetchval("select count(*) from worker.job_event where event = 'rescue'")
    report.expect(rescues == 0, f"{rescues} rescues, and no daemon had died")
    failed = await place.connection.fetch(
        "select id, job_type, finish_reason, errors::text from worker.job_queue"
        " where status not in ('completed', 'cancelled')"
    )
    report.expect(not failed, f"{len(failed)} jobs failed over a race, such as {[tuple(each) for each in failed[:2]]}")
    again, racing = await place.connection.fetchrow(
        "select count(*) filter (where attempt > 1), count(*) from worker.job_queue where job_type = 'racing'"
    )
    report.figures |= {"racing_jobs": racing, "attempted_again": again}
    report.expect(again <= SHOWS * racing, f"{again} of {racing} jobs needed another attempt because of a lost race")
