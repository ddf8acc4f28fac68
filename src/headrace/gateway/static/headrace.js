// Headrace for JavaScript: one module without dependencies, for browsers and for Node 20 and later.

const LINE_END = /\r\n|\r|\n/;

/**
 * Bytes of an event stream to events, by the rules of the HTML standard ("Interpreting an event stream"), however the
 * bytes are cut and in time linear in them. `lastEventId` is what a client that comes back would send.
 */
export class EventDecoder {
  retryMs = null;
  #utf8 = new TextDecoder(); // takes a byte order mark away, and keeps a character that is cut
  #skipsLineFeed = false; // the last character was a CR, which ended its line at once: an LF now belongs to it
  #line = ""; // what there is of a line that has not ended
  #data = [];
  #length = 0;
  #type = "";
  #id;

  constructor(lastEventId = "") {
    this.lastEventId = this.#id = lastEventId;
  }

  /** The characters of the event that has begun and not ended: at the end of a stream, what the end cut off. */
  get unfinished() {
    return this.#length + this.#line.length;
  }

  /** Returns the events that end in these bytes, as `{ type, data, id }`. */
  feed(bytes) {
    let text = this.#utf8.decode(bytes, { stream: true });
    if (text === "") return [];
    if (this.#skipsLineFeed && text[0] === "\n") text = text.slice(1);
    this.#skipsLineFeed = text.endsWith("\r");
    const events = [];
    const lines = text.split(LINE_END);
    const rest = lines.pop();
    for (const line of lines) {
      this.#endLine(this.#line + line, events);
      this.#line = "";
    }
    const isComment = this.#line === "" ? rest[0] === ":" : this.#line === ":";
    this.#line = isComment ? ":" : this.#line + rest; // of a comment, one colon says everything
    return events;
  }

  #endLine(line, events) {
    if (line === "") return this.#dispatch(events);
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") this.#length += this.#data.push(value) && value.length + 1;
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
  }

  /** Ends the block: its id is adopted with or without data, an event is made only of data. */
  #dispatch(events) {
    this.lastEventId = this.#id;
    if (this.#data.length) events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.#id });
    this.#data = [];
    this.#length = 0;
    this.#type = "";
  }
}
