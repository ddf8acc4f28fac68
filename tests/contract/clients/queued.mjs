// The queue by fal's JavaScript client, through the proxy route, told as lines of JSON: the arguments are STORY and
// SETTINGS, for tests/contract/test_official_queue.py. STORY is `free`, calls of an app with slots to spare, all at once;
// `line`, calls of an app whose one slot is taken, one after the other; or `resent`, one call over a bad network. Each
// thing that is told is `{"name": …, "told": …}`, or `"error"` in place of `"told"`.
import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { fal } from "@fal-ai/client";

const [story, text] = process.argv.slice(-2);
const settings = JSON.parse(text);
if (settings.proxy) fal.config({ proxyUrl: { url: settings.proxy, when: "always" }, credentials: process.env.FAL_KEY });

const ZOO = "zoo/zoo";
const SINGLE = "zoo/single";
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const errorOf = (error) => ({
  type: error.name,
  message: error.message,
  status: error.status,
  body: error.body,
  request_id: error.requestId,
  fields: error.fieldErrors,
});

async function untilDone(endpoint, requestId) {
  for (;;) {
    const status = await fal.queue.status(endpoint, { requestId, logs: true });
    if (status.status === "COMPLETED") return status;
    await sleep(50);
  }
}

/** An input of the model that goes on once its caller has seen it at work; and what tells it that. */
const watched = () => ({ n: 3, seen: `${settings.folder}/seen-${randomUUID()}` });
const sees = ({ seen }, { status }) => seen && status === "IN_PROGRESS" && writeFileSync(seen, "");

/** Subscribe, and tell all that it told on the way. */
async function subscribed(endpoint, input, options) {
  const [enqueued, updates] = [[], []];
  const { data, requestId } = await fal.subscribe(endpoint, {
    input,
    onEnqueue: (id) => enqueued.push(id),
    // A copy: in streaming mode the client hands over one list of log lines, and adds to it.
    onQueueUpdate: (update) => {
      updates.push(structuredClone(update));
      sees(input, update);
    },
    ...options,
  });
  return { data, id: requestId, enqueued, updates };
}

const free = {
  async by_hand() {
    const submitted = await fal.queue.submit(`${ZOO}/async`, { input: { n: 3, pause: 1 } });
    const requestId = submitted.request_id;
    const status = await untilDone(`${ZOO}/async`, requestId);
    const result = await fal.queue.result(`${ZOO}/async`, { requestId });
    return { submitted, status, data: result.data, id: result.requestId };
  },
  async stream_status() {
    const input = watched();
    const { request_id: requestId } = await fal.queue.submit("line/teller/watched", { input });
    const stream = await fal.queue.streamStatus("line/teller/watched", { requestId, logs: true });
    const states = [];
    stream.on("data", (event) => {
      states.push(event.status);
      sees(input, event);
    });
    const last = await stream.done();
    return { states, last };
  },
  polling: () => subscribed("line/teller/watched", watched(), { mode: "polling", logs: true, pollInterval: 100 }),
  streaming: () => subscribed("line/teller/watched", watched(), { mode: "streaming", logs: true }),
  polling_logs: () => subscribed("line/teller", { n: 4 }, { mode: "polling", logs: true, pollInterval: 100 }),
  streaming_logs: () => subscribed("line/teller", { n: 4 }, { mode: "streaming", logs: true }),
  sub_path: () => subscribed(`${ZOO}/def`, { n: 4 }, {}),
  namespace: () => subscribed("workflows/zoo/flow/sub/path", {}, { mode: "streaming" }),
  alias: () => subscribed("fal-ai/counter", { n: 1 }, {}),
  hint_and_priority: () => subscribed(`${ZOO}/request`, {}, { hint: "runner-7", priority: "low" }),
  wrong_input: () => subscribed(ZOO, { n: -1 }, { mode: "streaming" }),
  field_refused: () => subscribed(`${ZOO}/field`, {}, { mode: "polling" }),
  refused: () => subscribed(`${ZOO}/refuse`, {}, { mode: "streaming" }),
  raises: () => subscribed(`${ZOO}/raise-first`, {}, { mode: "streaming" }),
  raises_later: () => subscribed(`${ZOO}/raise-later`, {}, { mode: "polling" }),
  unknown_app: () => fal.queue.submit("zoo/nobody", { input: {} }),
  unknown_request: () => fal.queue.status(ZOO, { requestId: "0f8fad5b-d9cb-469f-a165-70867728950e" }),
  async early_result() {
    const { request_id: requestId } = await fal.queue.submit(`${ZOO}/async`, { input: { n: 10_000, pause: 0.02 } });
    try {
      return await fal.queue.result(`${ZOO}/async`, { requestId });
    } finally {
      await fal.queue.cancel(`${ZOO}/async`, { requestId });
    }
  },
  async cancel() {
    const input = { n: 10_000, pause: 0.02, name: settings.name };
    const { request_id: requestId } = await fal.queue.submit(`${ZOO}/async`, { input });
    while ((await fal.queue.status(ZOO, { requestId })).status !== "IN_PROGRESS") await sleep(50);
    await fal.queue.cancel(`${ZOO}/async`, { requestId });
    tell("cancelled_status", { told: await untilDone(ZOO, requestId) });
    await fal.queue.result(ZOO, { requestId }).catch((error) => tell("cancelled_result", { error: errorOf(error) }));
    await fal.queue.cancel(ZOO, { requestId });
  },
  async webhook() {
    const { request_id: id } = await fal.queue.submit(ZOO, { input: { n: 2 }, webhookUrl: settings.webhook });
    await untilDone(ZOO, id);
    return { id };
  },
  private_webhook: () => fal.queue.submit(ZOO, { input: {}, webhookUrl: "https://10.0.0.1/hook" }),
};

const line = {
  async in_line() {
    const low = await fal.queue.submit(SINGLE, { input: { name: "low" }, priority: "low" });
    const normal = await fal.queue.submit(SINGLE, { input: { name: "normal" }, priority: "normal" });
    const ids = [low.request_id, normal.request_id];
    const waiting = [];
    for (const requestId of ids) waiting.push(await fal.queue.status(SINGLE, { requestId }));
    for (const requestId of ids) await fal.queue.cancel(SINGLE, { requestId });
    const ended = [];
    for (const requestId of ids) ended.push(await fal.queue.status(SINGLE, { requestId }));
    return { waiting, ended };
  },
  start_timeout: () => fal.subscribe(SINGLE, { input: { name: "too late" }, startTimeout: 1.2, mode: "streaming" }),
  async client_timeout() {
    let requestId;
    const call = fal.subscribe(SINGLE, {
      input: { name: "gave up" },
      timeout: 1_000,
      mode: "polling",
      onEnqueue: (id) => (requestId = id),
    });
    const error = await call.catch((error) => error);
    return { message: error.message, status: await untilDone(SINGLE, requestId) };
  },
};

async function resent() {
  const { request_id: requestId } = await fal.queue.submit(`${ZOO}/async`, { input: { n: 1, name: "resent" } });
  await untilDone(ZOO, requestId);
  return (await fal.queue.result(ZOO, { requestId })).data;
}

function tell(name, what) {
  console.log(JSON.stringify({ name, ...what }));
}

async function take([name, step]) {
  try {
    tell(name, { told: await step() });
  } catch (error) {
    tell(name, { error: errorOf(error) });
  }
}

if (story === "free") await Promise.all(Object.entries(free).map(take));
else if (story === "line") for (const step of Object.entries(line)) await take(step);
else await take([story, resent]);
