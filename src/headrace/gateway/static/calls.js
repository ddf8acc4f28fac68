// What the page asks of the SDK: one call, its events as they come, and its end.
import { fal } from "/sdk/headrace.js";
import { ask, key } from "./session.js";

// A browser opens six connections to one HTTP/1.1 server; a page that held them all could not even stop a stream.
export const STREAMS_MAX = 4;
let streams = 0;
const LAST_WORDS_MS = 3_000; // for the log of a request that is over
const costOf = (view) => (view === "queue" ? 2 : 1); // its events, and its status

export const begin = () => fal.config({ baseUrl: location.origin, ...(key() && { credentials: key() }) });
export const hasRoom = (view) => streams + costOf(view) <= STREAMS_MAX;
export const upload = (file) => fal.storage.upload(file);
export const tokenFor = (app, id) => ask(`/${app}/requests/${id}/token`, {});

/** Make a call, {view, app, endpoint, input} or {view: "watch", app, request, token}, and tell `on` of it to its end. */
export async function make(call, on, signal) {
  streams += costOf(call.view);
  try {
    await VIEWS[call.view](call, on, signal);
  } finally {
    streams -= costOf(call.view);
  }
}

const VIEWS = {
  async run({ endpoint, input }, on, signal) {
    const { data, requestId } = await fal.run(endpoint.views.run.slice(1), { input, abortSignal: signal });
    on.id(requestId);
    on.event(data);
  },

  async stream({ app, endpoint, input }, on, signal) {
    const path = endpoint.views.stream.slice(app.length + 1);
    await follow(await fal.stream(app, { input, path, resume: true, signal }), on);
  },

  async queue({ app, endpoint, input }, on, signal) {
    const { request_id: request } = await fal.queue.submit(endpoint.views.queue.slice("/queue/".length), { input });
    const cancel = () => fal.queue.cancel(app, { requestId: request }).catch(() => {});
    if (signal.aborted) cancel(); // before there was an id
    signal.addEventListener("abort", cancel);
    const over = new AbortController();
    const told = tellStatus(app, request, on, over.signal).catch(() => {}); // the events say what is wrong
    try {
      await VIEWS.watch({ app, request }, on, signal);
    } finally {
      setTimeout(() => over.abort(), LAST_WORDS_MS);
      await told;
    }
  },

  async watch({ app, request, token }, on, signal) {
    on.id(request);
    await follow(await fal.attach(app, { requestId: request, token, signal }), on);
  },
};

async function follow(stream, on) {
  for await (const item of stream) {
    on.id(stream.requestId);
    on.event(item);
  }
}

/** Where a queued request stands, and what its model says. */
async function tellStatus(app, requestId, on, abortSignal) {
  const told = await fal.queue.streamStatus(app, { requestId, logs: true, abortSignal });
  for await (const { status, queue_position: before, logs } of told) {
    for (const line of logs ?? []) on.log(line);
    if (status === "IN_QUEUE") on.state(before ? `In line behind ${before}` : "Next in line");
  }
}
