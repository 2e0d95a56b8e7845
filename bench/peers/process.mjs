// What every Node queue's own process does: the same verbs, environment and answers as process.py.
import { renameSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const PAD = "x".repeat(80);
const CHUNK = 1000;
const WARM = 20;

// The packages lie in a cache, not beside this file.
export const bring = createRequire(`${process.env.BENCH_MODULES}/`);

const now = () => (performance.timeOrigin + performance.now()) / 1000;

export function tally() {
  const report = process.env.BENCH_REPORT.replace(/\.json$/, "");
  const jobs = Number(process.env.BENCH_JOBS);
  const holds = Boolean(process.env.BENCH_HOLD);
  const waits = [];
  let first = 0;
  let cpu = 0;
  let count = 0;
  const add = (payload) => {
    const at = now();
    count += 1;
    if (count === 1) {
      first = at;
      const { user, system } = process.cpuUsage();
      cpu = (user + system) / 1e6;
      writeFileSync(`${report}.first`, "");
    }
    if (payload.at !== undefined) waits.push((at - payload.at) * 1000);
    if (count === jobs) {
      writeFileSync(`${report}.new`, JSON.stringify({ first, cpu, last: at, waits }));
      renameSync(`${report}.new`, `${report}.json`);
    }
  };
  const run = (payload) => {
    add(payload);
    return holds ? sleep(3_600_000) : undefined;
  };
  return { add, run, holds };
}

export async function main({ install, work, producer }) {
  const [verb, dsn, ...numbers] = process.argv.slice(2);
  const settings = JSON.parse(process.env.BENCH_SETTINGS ?? "{}");
  if (verb === "install") await install(dsn);
  else if (verb === "work") return work(dsn, settings);
  else if (verb === "enqueue") await enqueue(await producer(dsn, settings), ...numbers.map(Number));
  else await stream(await producer(dsn, settings), ...numbers.map(Number));
  process.exit(0);
}

async function enqueue(producer, oneByOne, inBulk) {
  for (let n = 0; n < WARM; n += 1) await producer.one({ n, pad: PAD });
  let began = performance.now();
  for (let n = 0; n < oneByOne; n += 1) await producer.one({ n, pad: PAD });
  const single = (oneByOne / (performance.now() - began)) * 1000;
  began = performance.now();
  for (let start = 0; start < inBulk; start += CHUNK) {
    const size = Math.min(CHUNK, inBulk - start);
    await producer.many(Array.from({ length: size }, (_, n) => ({ n: start + n, pad: PAD })));
  }
  const many = (inBulk / (performance.now() - began)) * 1000;
  console.log(JSON.stringify({ enqueue: single, enqueue_many: many }));
}

async function stream(producer, jobs, rate, lanes = 4) {
  await producer.one({ n: 0 });
  const input = createInterface({ input: process.stdin });
  await new Promise((go) => input.once("line", go));
  const began = performance.now();
  const lane = async (first) => {
    for (let n = first; n < jobs; n += lanes) {
      const wait = began + (n / rate) * 1000 - performance.now();
      if (wait > 0) await sleep(wait);
      await producer.one({ n, at: now() });
    }
  };
  await Promise.all(Array.from({ length: lanes }, (_, first) => lane(first)));
  console.log(JSON.stringify({ rate: (jobs / (performance.now() - began)) * 1000 }));
  await new Promise((end) => input.once("close", end));
}
