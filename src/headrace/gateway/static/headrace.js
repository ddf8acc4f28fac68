// Headrace for JavaScript, under fal's names: one module without dependencies, for browsers and for Node 20 and later.
// headrace.d.ts says what each name means, docs/how-to/browser.md how it is used. A stream ends for success alone, and
// throws for all else. Nothing is sent twice but what may be: calls to the queue, and streams that are to be resumed.

const { HEADRACE_URL, HEADRACE_KEY, FAL_KEY } = globalThis.process?.env ?? {};
// A page that loaded this module from a server of ours talks to that server.
const HOME = import.meta.url.startsWith("http") ? new URL("..", import.meta.url).href : "http://127.0.0.1:8080";

const GRACE_MS = 30_000; // the server keeps a request going for so long whose reader was lost
const SILENCE_MS = 45_000; // a heartbeat comes every ten seconds, but the head of an answer may take thirty
const [TRIES_MAX, FIRST_TRIES_MAX] = [12, 6]; // connections in a row without an event; the second, without any answer
const [FIRST_PAUSE_MS, LONGEST_PAUSE_MS] = [100, 5_000]; // between tries: doubled each time, times 0.5 to 1.5
const [QUEUE_TRIES_MAX, RETRY_AFTER_MAX_S] = [8, 30]; // a longer `Retry-After` is for the caller to wait
const HELD_LENGTH_MAX = 256 * 1024; // of events that nobody takes, before the model has to wait
const EVENT_STREAM = /^text\/event-stream *(;|$)/i;
const EVENT_LENGTH_MAX = 64 * 1024 * 1024; // far over what a server of ours sends (1 MiB), far under memory

// --- what can go wrong -----------------------------------------------------------------------------------------------
export class HeadraceError extends Error {
  constructor(message, { requestId = null, retryable = false, ...facts } = {}) {
    Object.assign(super(message), { requestId, retryable, ...facts });
  }
}
export class ApiError extends HeadraceError { name = "ApiError"; }
export class ValidationError extends ApiError {
  name = "ValidationError";
  get fieldErrors() { return Array.isArray(this.body?.detail) ? this.body.detail : []; }
}
export class ConnectionLost extends HeadraceError { name = "ConnectionLost"; retryable = true; }
export class IdleTimeout extends ConnectionLost { name = "IdleTimeout"; }
export class ProtocolError extends HeadraceError { name = "ProtocolError"; }
const apiError = (message, facts) => new (facts.status === 422 ? ValidationError : ApiError)(message, facts);
const quoted = (text) => (text.length > 500 ? `${text.slice(0, 500)}…` : text);
const parsed = (text) => { try { return JSON.parse(text); } catch { return undefined; } };

/** The error that an answer is. Its message is fal's `detail`; a list of wrong fields becomes one line. */
async function errorIn(response, call) {
  const text = await carried(response.text(), call);
  const [{ status }, body, header] = [response, parsed(text) ?? text, (name) => response.headers.get(name)];
  const words = ({ loc, msg }) => `${loc?.filter((part) => part !== "body").join(".") || "body"}: ${msg}`;
  const detail = Array.isArray(body.detail) ? body.detail.map(words).join("; ") : body.detail;
  const errorType = body.error_type ?? header("x-fal-error-type");
  const said = header("x-fal-needs-retry") ?? header("x-fal-retryable") ?? (errorType ? "0" : null);
  const retryable = said === null ? [408, 429, 502, 503, 504].includes(status) : /^(1|true)$/i.test(said);
  const retryAfter = /^\d+$/.test(header("retry-after")) ? Number(header("retry-after")) : null;
  const facts = { status, body, errorType, retryable, retryAfter, requestId: header("x-fal-request-id") };
  return apiError(String(detail ?? (quoted(text) || `HTTP ${status}`)), facts);
}

// --- event streams ---------------------------------------------------------------------------------------------------
/** By the rules of the HTML standard ("Interpreting an event stream"), however the bytes are cut, in linear time. */
export class EventDecoder {
  retryMs = null;
  #utf8 = new TextDecoder(); // takes a byte order mark away, and keeps a character that is cut
  #skipsLineFeed = false; // the last character was a CR, which ended its line at once: an LF now belongs to it
  #line = ""; // what there is of a line that has not ended
  #id; #data = []; #length = 0; #type = ""; // of a block that has not ended

  constructor(lastEventId = "") { this.lastEventId = this.#id = lastEventId; }
  get unfinished() { return this.#length + this.#line.length; }

  feed(bytes) {
    let text = this.#utf8.decode(bytes, { stream: true });
    if (text === "") return [];
    if (this.#skipsLineFeed && text[0] === "\n") text = text.slice(1);
    this.#skipsLineFeed = text.endsWith("\r");
    const [events, lines] = [[], text.split(/\r\n|\r|\n/)];
    const rest = lines.pop();
    for (const line of lines) this.#endLine(line, events);
    const isComment = this.#line === "" ? rest[0] === ":" : this.#line === ":";
    this.#line = isComment ? ":" : this.#line + rest; // of a comment, one colon says everything
    return events;
  }

  #endLine(rest, events) {
    const line = this.#line + rest;
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    this.#line = "";
    if (name === "data") this.#length += this.#data.push(value) && value.length + 1;
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
    if (line !== "") return;
    this.lastEventId = this.#id; // adopted with or without data; an event is made only of data
    if (this.#data.length) events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.#id });
    [this.#data, this.#length, this.#type] = [[], 0, ""];
  }
}

/** The item of one event. Throws what an error event says, and `ProtocolError` for what is not JSON. */
function itemOf({ type, data }, requestId) {
  const item = parsed(data);
  if (item === undefined) throw new ProtocolError(`an event is not JSON: ${quoted(data)}`, { requestId });
  const told = item?.error && Object.keys(item)[0] === "error" ? item.error : null;
  if (type !== "error" && !(typeof told?.type === "string" && "message" in told)) return item;
  const { message, error, request_id: id = requestId, type: errorType = null, ...facts } = told ?? item ?? {};
  const { status = null, retryable } = facts;
  throw apiError(String(message ?? error ?? data), { status, body: item, errorType, retryable, requestId: id });
}

// --- one exchange ----------------------------------------------------------------------------------------------------
/** Waits for a step of an exchange. If it fails, the caller has left, or the connection is lost. */
const carried = (step, { path, signal }, requestId = null) => step.catch((cause) => {
  if (signal?.aborted) throw signal.reason;
  const Fault = cause instanceof SyntaxError ? ProtocolError : ConnectionLost; // of JSON that is none
  const place = path.split("?")[0]; // behind that, an upload has its key
  throw new Fault(`${place}: ${cause.cause?.message ?? cause.message}`, { requestId, cause });
});
/** The caller's headers, whatever their case, and those of ours that are not among them. */
function withHeaders(headers, ours) {
  const all = new Headers(headers);
  for (const [name, value] of Object.entries(ours)) if (value && !all.has(name)) all.set(name, value);
  return all;
}

/** Sends a call, and returns the head of an answer that is success. */
async function send(settings, call) {
  const { method = "GET", path, query = {}, headers, json, body = json, signal, isKeyless, keepalive } = call;
  const { baseUrl = HEADRACE_URL || HOME, credentials = HEADRACE_KEY || FAL_KEY, fetch = globalThis.fetch } = settings;
  const key = isKeyless ? null : typeof credentials === "function" ? await credentials() : credentials;
  const url = new URL(path, baseUrl.replace(/\/*$/, "/"));
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
  const own = { authorization: key && `Key ${key}`, "content-type": json && "application/json" };
  const redirect = method === "GET" ? "follow" : "error"; // a POST is not sent twice
  const options = { method, body, signal, keepalive, redirect, cache: "no-store", headers: withHeaders(headers, own) };
  const response = await carried(fetch(new Request(url, options), { signal }), call); // Node may lose the request's own
  if (response.ok) return response;
  throw await errorIn(response, call);
}
async function ask(settings, call) {
  const response = await send(settings, call);
  return { data: await carried(response.json(), call), requestId: response.headers.get("x-fal-request-id") };
}
/** Takes a step until it works, or until `pauseMs` is null: then its error is the caller's to see. */
async function insist(step, pauseMs, signal) {
  for (let tried = 1; ; tried += 1) {
    try { return await step(); } catch (error) {
      const ms = signal?.aborted ? null : pauseMs(error, tried);
      if (ms === null) throw error;
      await pause(ms, signal);
    }
  }
}
const backoffMs = (tried) => Math.min(FIRST_PAUSE_MS * 2 ** (tried - 1), LONGEST_PAUSE_MS) * (0.5 + Math.random());
const pause = (ms, signal) => new Promise((resolve) => {
  const end = () => { clearTimeout(timer); signal?.removeEventListener("abort", end); resolve(); };
  const timer = setTimeout(end, signal?.aborted ? 0 : ms);
  signal?.addEventListener("abort", end);
}).then(() => signal?.throwIfAborted());

// --- a stream, over as many connections as it takes ------------------------------------------------------------------
const isRollback = (item) => item?.type === "rollback" && Object.keys(item).sort().join() === "attempt,type";
export class FalStream {
  #settings; #first; #plan; #signal; #events; #queue; #done; // see the constructor
  #leaving = new AbortController(); #listeners = { data: [], error: [], done: [] }; #onRoom = () => {};
  #last; #toldAttempt; #lastEventId; // the id is "" from a server that gives none, which cannot be resumed
  #isAnswered = false; #failures = 0; #lostAt = null; // how often since the last event, and since when, nobody answered

  constructor(settings, first, { signal, requestId = null, lastEventId, ...plan }) {
    const { resumes = false, timeout = resumes ? SILENCE_MS : Infinity } = plan;
    if (!(timeout > 0)) throw new RangeError(`timeout must be milliseconds over 0, not ${timeout}`);
    signal?.throwIfAborted();
    this.requestId = requestId;
    [this.#settings, this.#first, this.#plan, this.#lastEventId] = [settings, first, plan, lastEventId];
    const source = { start: (queue) => { this.#queue = queue; }, pull: () => this.#onRoom() };
    this.#events = new ReadableStream(source, { highWaterMark: HELD_LENGTH_MAX, size: ({ length }) => length });
    this.#signal = limited(this.#leaving.signal, signal);
    this.#signal.addEventListener("abort", () => this.#onRoom(this.#queue.error(this.#signal.reason)));
    this.#done = this.#run(timeout);
    this.#done.catch(() => {}); // who asks is told; nobody has to ask
  }

  async *[Symbol.asyncIterator]() {
    if (this.#events.locked) throw new TypeError("this stream is read already: by a loop, by listeners, or by done()");
    const reader = this.#events.getReader();
    try {
      for (let event; !(event = await reader.read()).done; ) yield event.value.item;
      await this.#done; // throws what the stream ended with, unless that is success
    } finally { reader.releaseLock(); this.abort(); }
  }

  on(type, listener) {
    if (!Object.hasOwn(this.#listeners, type)) throw new TypeError(`a stream tells data, error and done, not ${type}`);
    this.#listeners[type].push(listener);
    if (type === "data") this.done();
  }
  done() { // where no loop begins now, the events go nowhere but to listeners
    queueMicrotask(() => this.#events.locked || this.#events.pipeTo(new WritableStream()).catch(() => {}));
    return this.#done;
  }
  abort(reason = new DOMException("the stream was left", "AbortError")) { this.#leaving.abort(reason); }
  #tell(type, value) { // each by itself: one that throws harms nobody, and is reported like any fault of the page's
    const isLate = () => type === "data" && this.#signal.aborted;
    for (const listener of this.#listeners[type]) queueMicrotask(() => isLate() || listener(value));
  }

  async #run(timeout) {
    try {
      await insist(() => this.#read(timeout), (error) => this.#pauseMs(error), this.#signal);
      this.#queue.close();
      this.#tell("done", this.#last);
      return this.#last;
    } catch (failure) {
      const [isLeft, error] = this.#signal.aborted ? [true, this.#signal.reason] : [false, failure];
      if (this.#plan.isOwn && (isLeft || error instanceof ProtocolError)) this.#sayFarewell().catch(() => {});
      if (!isLeft) this.#queue.close();
      this.requestId ??= error?.requestId ?? null;
      this.#tell("error", error);
      throw error;
    }
  }

  async #read(timeout) { // one connection, to its end
    const silence = new AbortController();
    const call = { ...this.#next(), signal: limited(this.#signal, silence.signal) };
    let [since, isEmpty] = [performance.now(), true]; // we wait for a byte, and there was no event
    const fault = () => new IdleTimeout(`${call.path}: not a byte for ${timeout} ms`, this);
    const look = () => performance.now() - since < timeout || silence.abort(fault());
    const watch = timeout < Infinity && setInterval(look, Math.min(timeout / 8, 1_000));
    try {
      const { status, headers, body } = this.#opened(await send(this.#settings, call));
      if (status === 204 && this.#lastEventId) return; // the last event was the last
      const type = status === 200 ? headers.get("content-type") : `status ${status}`;
      if (!EVENT_STREAM.test(type)) throw new ProtocolError(`${call.path} is no stream: ${type}`, this);
      const [reader, decoder] = [body.getReader(), new EventDecoder()];
      for (;;) {
        since = performance.now();
        const { done, value } = await carried(reader.read(), call, this.requestId);
        since = Infinity;
        if (done) break;
        const events = decoder.feed(value);
        isEmpty &&= events.length === 0;
        for (const event of events) this.#handOver(itemOf(event, this.requestId), event);
        if (decoder.unfinished > EVENT_LENGTH_MAX) throw new ProtocolError(`${call.path}: an event is too long`, this);
        if (this.#queue.desiredSize <= 0 && !this.#signal.aborted) await new Promise((go) => { this.#onRoom = go; });
      }
      // To Node, a cut looks like an end where the server said `Connection: close`; to Chromium, one within the head.
      const hidesCuts = globalThis.process && headers.get("connection") === "close" && !headers.has("content-length");
      const isDoubtful = hidesCuts || (isEmpty && (this.#plan.resumes || !this.#lastEventId));
      if (decoder.unfinished || isDoubtful) throw new ConnectionLost(`${call.path}: the stream was cut`, this);
    } finally { clearInterval(watch); silence.abort(); } // which closes what is still open
  }

  #handOver(item, { id, data: { length } }) {
    // A rollback has the id of the last event of the attempt before, so whoever is cut right behind it is told again.
    const isTold = this.#failures && isRollback(item) && item.attempt === this.#toldAttempt;
    [this.#failures, this.#lastEventId] = [0, id];
    if (isTold) return;
    if (isRollback(item)) this.#toldAttempt = item.attempt;
    this.#last = item;
    this.#tell("data", item);
    this.#queue.enqueue({ item, length });
  }

  #at(method, action) { // of the request, once its id is known
    return { method, path: requestPath(this.#plan.id, this.requestId, action), headers: this.#plan.headers };
  }
  #next() { // the call itself, or what watches the request that it began
    const call = this.#plan.isOwn && this.requestId ? this.#at("GET", "stream") : this.#first;
    const own = { accept: "text/event-stream", "last-event-id": this.#lastEventId };
    return { ...call, headers: withHeaders(call.headers, own) };
  }
  #opened(response) {
    [this.#isAnswered, this.#lostAt] = [true, null];
    this.requestId ??= response.headers.get("x-fal-request-id");
    return response;
  }

  #pauseMs(error) { // until the next connection; null where the error is the caller's to see
    const isCut = error instanceof ConnectionLost || (!error.requestId && [502, 503, 504].includes(error.status));
    if (!this.#plan.resumes || !isCut || this.#lastEventId === "") return null;
    this.#failures += 1;
    this.#lostAt ??= performance.now();
    const isHopeless = this.#failures >= (this.#isAnswered ? TRIES_MAX : FIRST_TRIES_MAX);
    return isHopeless || performance.now() - this.#lostAt > GRACE_MS ? null : backoffMs(this.#failures);
  }
  async #sayFarewell() { // a courtesy: the server would wait for us; but nobody stops what somebody else began
    const signal = AbortSignal.timeout(LONGEST_PAUSE_MS);
    if (!this.#isAnswered) { // the call's key finds the request, whose reader's leaving is its end then
      const headers = withHeaders({ "x-headrace-on-disconnect": "cancel" }, Object.fromEntries(this.#first.headers));
      await this.#opened(await send(this.#settings, { ...this.#first, headers, signal })).body.cancel();
    }
    if (this.requestId) await send(this.#settings, { ...this.#at("PUT", "cancel"), keepalive: true, signal });
  }
}

// --- the calls -------------------------------------------------------------------------------------------------------
const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");
const limited = (...of) => Object.assign(AbortSignal.any(of.filter(Boolean)), { of }); // Node alone holds them weakly
const after = (ms) => ms && AbortSignal.timeout(ms);
/** `[namespace/]owner/alias[/path]` with what is `below` it, and the part that names the app, as a path has them. */
function endpointOf(id, below = "") {
  const parts = id.replace(/^\/+|\/+$/g, "").replace(/^(\d+)-(?=[a-z\d-]+$)/i, "$1/").split("/");
  const [named, full] = [/^(workflows|comfy)$/.test(parts[0]) ? 3 : 2, [...parts, ...below.split("/").filter(Boolean)]];
  const isBad = parts.length < named || parts.includes("") || full.includes(".") || full.includes("..");
  if (isBad) throw new TypeError(`${id} is no endpoint id; expected owner/alias or owner/alias/path`);
  const [app, whole] = [full.slice(0, named), full].map((names) => names.map(encodeURIComponent).join("/"));
  return { app, whole };
}
function requestPath(id, requestId, ...action) {
  if (!/^[\w~-][\w.~-]{0,255}$/.test(requestId)) throw new TypeError(`${requestId} is no request's id`);
  return [endpointOf(id).app, "requests", requestId, ...action].join("/");
}

async function upload(settings, blob, signal) {
  const type = blob.type || "application/octet-stream";
  const json = JSON.stringify({ content_type: type, file_name: blob.name ?? `${Date.now()}.${/\w*$/.exec(type)}` });
  const initiate = { method: "POST", path: "storage/upload/initiate?storage_type=fal-cdn-v3", json, signal };
  const { data: { upload_url: given, file_url: url } } = await ask(settings, initiate);
  const path = given.replace(/^https?:\/\/[^/]+/, ""); // on the server that we call, which may have another name, too
  await send(settings, { method: "PUT", path, body: blob, headers: { "content-type": type }, isKeyless: true, signal });
  return url;
}
/** The JSON of an input, with a URL in place of each Blob in it. */
async function jsonOf(settings, input, signal) {
  const urls = new Map();
  const replace = (_, value) => (value instanceof Blob ? (urls.get(value) ?? urls.set(value)) : value);
  JSON.stringify(input, replace);
  await Promise.all([...urls.keys()].map(async (blob) => urls.set(blob, await upload(settings, blob, signal))));
  return JSON.stringify(input, replace);
}

async function callOf(settings, path, { input = {}, method = "POST", queryParams: query, headers, ...options }, ours) {
  const { webhookUrl: fal_webhook, hint, priority, startTimeout, abortSignal, signal = abortSignal } = options;
  const own = { "x-fal-runner-hint": hint, "x-fal-queue-priority": priority, "x-fal-request-timeout": startTimeout };
  const all = withHeaders(headers, { ...own, ...ours });
  const json = method.toUpperCase() === "GET" ? undefined : await jsonOf(settings, input, signal);
  signal?.throwIfAborted(); // who leaves during the uploads has called nothing
  return { method: method.toUpperCase(), path, query: { ...query, fal_webhook }, json, headers: all, signal };
}

export function createFalClient(settings = {}) {
  const asking = (call, tries, ofAnswers) => insist(() => ask(settings, call), (error, tried) => {
    const passes = error.retryable && (ofAnswers || !error.requestId || error instanceof ConnectionLost);
    const [askedS, isLast] = [error.retryAfter ?? 0, tried >= tries];
    return passes && !isLast && askedS <= RETRY_AFTER_MAX_S ? askedS * 1_000 + backoffMs(tried) : null;
  }, call.signal);
  const at = (id, { requestId, abortSignal: signal, logs }, ...action) =>
    ({ path: `queue/${requestPath(id, requestId, ...action)}`, query: { logs: logs ? 1 : undefined }, signal });
  const submission = (id, options = {}) =>
    callOf(settings, `queue/${endpointOf(id).whole}`, options, { "idempotency-key": newKey() });
  /** By the server's stream of them until that is cut; else by asking. Log lines are always all there are so far. */
  async function* statuses(id, { mode, pollInterval = 500, ...options }) {
    const lines = [];
    try {
      for await (const status of mode === "streaming" ? await queue.streamStatus(id, options) : []) {
        yield status.logs ? { ...status, logs: lines.push(...status.logs) && [...lines] } : status;
      }
    } catch (error) { if (!error?.retryable) throw error; }
    for (;; await pause(pollInterval, options.abortSignal)) yield await queue.status(id, options);
  }

  const queue = {
    submit: async (id, options) => (await asking(await submission(id, options), 3, true)).data,
    status: async (id, options) => (await asking(at(id, options, "status"), QUEUE_TRIES_MAX, true)).data,
    result: async (id, options) => asking(at(id, options), QUEUE_TRIES_MAX),
    cancel: async (id, options) => void (await asking({ ...at(id, options, "cancel"), method: "PUT" }, 3)),
    streamStatus: async (id, { timeout, ...options }) =>
      new FalStream(settings, at(id, options, "status", "stream"), { timeout, signal: options.abortSignal }),
    async subscribeToStatus(id, { timeout, abortSignal, onQueueUpdate, ...options }) {
      for await (const status of statuses(id, { ...options, abortSignal: limited(abortSignal, after(timeout)) })) {
        onQueueUpdate?.(status);
        if (status.status === "COMPLETED") return status;
      }
    },
  };
  return {
    queue,
    storage: { upload: (blob, { signal } = {}) => upload(settings, blob, signal) },
    run: async (id, options = {}) => ask(settings, await callOf(settings, endpointOf(id).whole, options)),
    async stream(id, { path = /\/stream\/*$/.test(id) ? "" : "/stream", resume = false, ...options } = {}) {
      const ours = { "idempotency-key": newKey(), "x-headrace-on-disconnect": "grace:30", "x-headrace-event-ids": "1" };
      const call = await callOf(settings, endpointOf(id, path).whole, options, resume ? ours : {});
      return new FalStream(settings, call, { ...options, id, resumes: resume, isOwn: resume });
    },
    async attach(id, { requestId, token, resume = true, ...options }) {
      const [path, query] = [requestPath(id, requestId, "stream"), { fal_jwt_token: token }];
      const call = { path, query, headers: options.headers, isKeyless: token };
      return new FalStream(settings, call, { ...options, requestId, resumes: resume });
    },
    async subscribe(id, { onEnqueue, onQueueUpdate, timeout, abortSignal, ...options } = {}) {
      const own = { ...options, abortSignal: limited(abortSignal, after(timeout)) };
      const call = await submission(id, own);
      const submitted = asking(call, 3, true);
      try {
        const { request_id: requestId } = (await submitted).data;
        onEnqueue?.(requestId);
        await queue.subscribeToStatus(id, { ...own, requestId, onQueueUpdate });
        return await queue.result(id, { ...own, requestId });
      } catch (error) { // the request is of no use to anybody; its call, sent again, tells an id that nobody heard
        const heard = () => submitted.catch(() => asking({ ...call, signal: after(SILENCE_MS) }, 3, true));
        const cancel = ({ data }) => queue.cancel(id, { requestId: data.request_id });
        if (own.abortSignal.aborted) heard().then(cancel).catch(() => {});
        throw error;
      }
    },
  };
}
const shared = {};
export const fal = { ...createFalClient(shared), config: (settings) => void Object.assign(shared, settings) };
