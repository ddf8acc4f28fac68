// The types of headrace.js. docs/how-to/browser.md says how it is used.

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
  /** The characters of the event that has begun and not ended. */
  readonly unfinished: number;
  /** Returns the events that end in these bytes. */
  feed(bytes: Uint8Array): ServerSentEvent[];
}
