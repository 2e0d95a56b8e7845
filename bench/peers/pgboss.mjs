// pg-boss: batches fetched by several local workers, without a pause while batches come back full.
import { bring, main, tally } from "./process.mjs";

const { PgBoss } = bring("pg-boss");
const QUEUE = "noop";

async function started(connectionString, options) {
  const boss = new PgBoss({ connectionString, ...options });
  boss.on("error", console.error);
  return boss.start();
}

await main({
  async install(connectionString) {
    const boss = await started(connectionString);
    await boss.createQueue(QUEUE, { notify: true });
    await boss.stop();
  },
  async work(connectionString, { useListenNotify, ...settings }) {
    const { add, holds, run } = tally();
    const boss = await started(connectionString, { useListenNotify });
    await boss.work(QUEUE, settings, async (jobs) => {
      for (const job of jobs) add(job.data);
      if (holds) await run({});
    });
  },
  async producer(connectionString) {
    const boss = await started(connectionString, { max: 4, supervise: false, schedule: false });
    return {
      one: (payload) => boss.send(QUEUE, payload),
      many: (payloads) => boss.insert(QUEUE, payloads.map((data) => ({ data }))),
    };
  },
});
