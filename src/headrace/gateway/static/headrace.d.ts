// The types of headrace.js. docs/how-to/browser.md says how it is used. Times are milliseconds unless they say seconds.

/** Where a client calls, and with what. */
export interface Settings {
  /** The server's address. Default: `HEADRACE_URL` in Node; the server that a page loaded this module from. */
  baseUrl?: string;
  /** A key, or a function that returns one for each call. Default: `HEADRACE_KEY` or `FAL_KEY` in Node; none in a page. */
  credentials?: string | (() => string | undefined | Promise<string | undefined>);
  /** What sends requests, in place of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
}

/** What each call of an endpoint takes. */
export interface CallOptions {
  /** The endpoint's input; `{}` unless given. Each Blob and File in it is uploaded, and a URL takes its place. */
  input?: unknown;
  /** `"post"` unless given; a GET has no body, and no input. */
  method?: string;
  queryParams?: Record<string, string | number | boolean | undefined>;
  /** They go before ours. */
  headers?: Record<string, string>;
  /** Which runner is to take it, if that is possible. */
  hint?: string;
  /** Seconds that the request may wait for a free runner. */
  startTimeout?: number;
  priority?: "normal" | "low";
}

export interface RunOptions extends CallOptions {
  abortSignal?: AbortSignal;
}

export interface StreamOptions extends CallOptions {
  /** Joined to the id; `"/stream"` unless given, or nothing where the id ends with that. */
  path?: string;
  signal?: AbortSignal;
  /** Without a byte for so long the stream ends with `IdleTimeout`; heartbeats are bytes. Without limit unless given;
   *  45,000 for a stream that resumes, for which silence is a cut. */
  timeout?: number;
  /** Whether a lost connection is made again, without a gap or a repeat. The server is then told of every leaving on
   *  purpose; whoever just vanishes leaves it 30 seconds of work. */
  resume?: boolean;
}

export interface AttachOptions {
  requestId: string;
  /** The id of an event; those behind it follow. All of them unless given. */
  lastEventId?: string;
  /** A reading token, in place of the key. */
  token?: string;
  signal?: AbortSignal;
  timeout?: number;
  /** `true` unless given. */
  resume?: boolean;
  headers?: Record<string, string>;
}

/** An answer, and the server's id of the request. */
export interface Result<Data> {
  data: Data;
  requestId: string | null;
}

export interface LogLine {
  message: string;
  timestamp: string;
  level: string;
  source: string;
}

export interface QueueStatus {
  status: "IN_QUEUE" | "IN_PROGRESS" | "COMPLETED";
  request_id: string;
  response_url: string;
  status_url: string;
  cancel_url: string;
  /** While it waits: how many are before it. */
  queue_position?: number;
  /** All lines so far, if they were asked for. */
  logs?: LogLine[] | null;
  metrics?: { inference_time?: number };
  /** Set if it failed or was cancelled. */
  error?: string | null;
  error_type?: string | null;
}

export interface RequestOptions {
  requestId: string;
  abortSignal?: AbortSignal;
}

export interface StatusOptions extends RequestOptions {
  logs?: boolean;
}

export interface SubscribeToStatusOptions extends StatusOptions {
  /** `"polling"`, which asks every `pollInterval`, unless given; `"streaming"` is told, until that is cut. */
  mode?: "polling" | "streaming";
  /** 500 unless given. */
  pollInterval?: number;
  /** Gives up after so long, with a `TimeoutError`. */
  timeout?: number;
  onQueueUpdate?: (status: QueueStatus) => void;
}

export interface SubmitOptions extends RunOptions {
  /** Where the result is sent. */
  webhookUrl?: string;
}

export interface SubscribeOptions extends SubmitOptions, Omit<SubscribeToStatusOptions, "requestId"> {
  onEnqueue?: (requestId: string) => void;
}

/** The events of one stream, which begins at once. One loop can read it. */
export class FalStream<Item = any> implements AsyncIterable<Item> {
  private constructor();
  /** The server's id of the request, null until it has answered. */
  requestId: string | null;
  /** Ends for success alone, and throws for all else. It may begin late, and gets all events; a further loop finds none,
   *  and ends as the first did. Leaving it leaves the stream. */
  [Symbol.asyncIterator](): AsyncGenerator<Item, void, void>;
  /** Hears each event from now on. Where no loop has begun by then, the events go to listeners alone. */
  on(type: "data", listener: (item: Item) => void): void;
  on(type: "error", listener: (error: unknown) => void): void;
  on(type: "done", listener: (last: Item) => void): void;
  /** Resolves to the last event, the result; rejects for all but success. Nobody has to ask. */
  done(): Promise<Item>;
  /** Leaves: the connection is closed at once, a request that resumes is cancelled, loop and `done` throw `reason`. */
  abort(reason?: unknown): void;
}

export interface Queue {
  /** Queues a request for good; sent again if nobody answers, which starts nothing twice. */
  submit(id: string, options?: SubmitOptions): Promise<QueueStatus>;
  status(id: string, options: StatusOptions): Promise<QueueStatus>;
  /** The server's own stream of statuses; the log lines of each are the new ones. */
  streamStatus(id: string, options: StatusOptions & { timeout?: number }): Promise<FalStream<QueueStatus>>;
  /** Follows a request to its end, and returns the last status. */
  subscribeToStatus(id: string, options: SubscribeToStatusOptions): Promise<QueueStatus>;
  /** Throws the model's own `ApiError` if it failed. */
  result<Data = any>(id: string, options: RequestOptions): Promise<Result<Data>>;
  cancel(id: string, options: RequestOptions): Promise<void>;
}

export interface FalClient {
  /** The endpoint's last item. Never sent twice. */
  run<Data = any>(id: string, options?: RunOptions): Promise<Result<Data>>;
  /** All its items, as they are made. */
  stream<Item = any>(id: string, options?: StreamOptions): Promise<FalStream<Item>>;
  /** The items of a request that somebody began, and whose end is none of our business. */
  attach<Item = any>(id: string, options: AttachOptions): Promise<FalStream<Item>>;
  /** By the queue: submits, follows, and returns the result. Giving up, by `timeout` or `abortSignal`, cancels it. */
  subscribe<Data = any>(id: string, options?: SubscribeOptions): Promise<Result<Data>>;
  queue: Queue;
  storage: {
    /** Uploads, and returns the file's URL. */
    upload(blob: Blob, options?: { signal?: AbortSignal }): Promise<string>;
  };
}

/** A client of its own. */
export function createFalClient(settings?: Settings): FalClient;

/** The client that all of a program may share. */
export const fal: FalClient & { config(settings: Settings): void };

/** A request failed. `requestId` finds it in the server's log; `retryable` says whether it may work another time. */
export class HeadraceError extends Error {
  requestId: string | null;
  retryable: boolean;
}

/** The server said so: by an HTTP status before the first event, by an error event after it. */
export class ApiError extends HeadraceError {
  /** The HTTP status, or what it would have been; null where an error event does not say. */
  status: number | null;
  /** The JSON of the answer or event, or the text. */
  body: any;
  /** One of the error types of docs/reference/errors.md, from a server of ours. */
  errorType: string | null;
  /** Seconds that the server asked to wait. */
  retryAfter?: number | null;
}

/** 422: the input does not fit the endpoint. */
export class ValidationError extends ApiError {
  /** Each wrong field. */
  get fieldErrors(): { loc: (string | number)[]; msg: string; type: string; [name: string]: unknown }[];
}

/** No answer, or one that was cut: refused, reset, unreachable, silent. What came before is good; it is not all. */
export class ConnectionLost extends HeadraceError {}

/** Not a byte for `timeout` milliseconds. */
export class IdleTimeout extends ConnectionLost {}

/** The answer is not what this module reads: another service's, perhaps. */
export class ProtocolError extends HeadraceError {}

/** One event of a stream: what `MessageEvent` has. */
export interface ServerSentEvent {
  /** The `event` field, `"message"` when there was none. */
  type: string;
  /** The `data` fields, joined by line feeds. */
  data: string;
  /** The last id seen up to here, `""` when there was none. */
  id: string;
}

/** Bytes of an event stream to events, by the HTML standard, however the bytes are cut and in linear time. */
export class EventDecoder {
  /** @param lastEventId what an earlier connection ended with */
  constructor(lastEventId?: string);
  /** What a client that comes back would send as `Last-Event-ID`. */
  lastEventId: string;
  /** The reconnection time that the server asked for, in milliseconds; null until it did. */
  retryMs: number | null;
  /** The characters of the event that has begun and not ended: at the end of a stream, what the end cut off. */
  readonly unfinished: number;
  /** Returns the events that end in these bytes. */
  feed(bytes: Uint8Array): ServerSentEvent[];
}
