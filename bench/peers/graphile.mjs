// Graphile Worker: a local queue, completions in batches, as its own performance page advises.
import { bring, main, tally } from "./process.mjs";

const { Logger, run, runMigrations, makeWorkerUtils } = bring("graphile-worker");
const logger = new Logger(() => () => {}); // its own writes a line for each job

await main({
  install: (connectionString) => runMigrations({ connectionString }),
  async work(connectionString, { localQueue, refetchDelay, ...settings }) {
    const { run: noop } = tally();
    const delay = { durationMs: refetchDelay };
    const worker = { ...settings, connectionString, localQueue: { size: localQueue, refetchDelay: delay } };
    const runner = await run({ logger, preset: { worker }, taskList: { noop } });
    await runner.promise;
  },
  async producer(connectionString) {
    const utils = await makeWorkerUtils({ logger, connectionString, maxPoolSize: 4 });
    return {
      one: (payload) => utils.addJob("noop", payload),
      many: (payloads) => utils.addJobs(payloads.map((payload) => ({ identifier: "noop", payload }))),
    };
  },
});
