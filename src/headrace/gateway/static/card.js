// One request on the page: how it is, what it made, its events and figures, and links to it.
import { make, tokenFor } from "./calls.js";
import { attempt, copyButton, h, newId, seconds } from "./dom.js";
import { Events } from "./events.js";
import { Plot } from "./plot.js";
import { Show } from "./show.js";

const ENDS = { stopped: "Stopped after", failed: "Failed after", done: "Done in" };
const LOG_LINES_MAX = 500;
const SPEAK_EVERY_MS = 3_000; // of progress, to whoever listens to the page

const button = (label, onclick, more) => h("button.small", { onclick, ...more }, label);

export class Card {
  #call;
  #id = null;
  #stop = new AbortController();
  #began = performance.now();
  #spokenAt = -SPEAK_EVERY_MS;
  #show = new Show();
  #events = new Events();
  #plot = new Plot();
  #state = h("span.state", { role: "status" }, "Waiting for the first event");
  #spoken = h("span.unseen", { role: "status" });
  #share = button("Share", () => this.#offerLinks(), { hidden: true, "aria-expanded": "false" });
  #stopButton = button("Stop", () => this.#stop.abort());
  #close = button("×", () => this.onClose(), { "aria-label": "Close", hidden: true });
  #links = h("div.links", { hidden: true });
  #failure = h("div.failure", { role: "alert", hidden: true });
  #log = h("pre", { tabIndex: 0, role: "group", "aria-label": "Log" });
  #logs = h("details.logs", { hidden: true }, h("summary", "Log"), this.#log);
  #raw = h("details", { hidden: true }, h("summary", "Events"), this.#events.element);
  #name = h("code.request-id");
  #foot = h("footer", { hidden: true }, this.#plot.element, this.#name);

  /** `call` is what `calls.make` takes, its title, and whether it `needsKey`. */
  constructor(call) {
    this.#call = call;
    if (call.view === "watch") this.#stopButton.textContent = "Leave";
    this.#raw.open = call.view !== "run" && matchMedia("(min-width: 60rem)").matches;
    const id = newId("call");
    this.element = h("article.panel.card", { "data-state": "live", "aria-labelledby": id },
      h("header", h("h2", { id }, call.title), this.#state, this.#spoken,
        h("div.tools", this.#share, this.#stopButton, this.#close)),
      this.#links,
      h("div.split", h("div", this.#failure, this.#show.element, this.#logs), this.#raw),
      this.#foot);
  }

  get isLive() {
    return this.element.dataset.state === "live";
  }

  /** Make the call and follow it to its end. Resolves with the error that ended it, or null. */
  async follow() {
    const on = {
      id: (id) => this.#know(id),
      state: (text) => this.#tell(text),
      event: (item) => attempt(() => this.#take(item)),
      log: (line) => this.#say(line),
    };
    const failure = await make(this.#call, on, this.#stop.signal).then(() => null, (error) => error);
    const state = this.#stop.signal.aborted ? "stopped" : failure ? "failed" : "done";
    attempt(() => this.#show.end());
    this.element.dataset.state = state;
    this.#tell(`${ENDS[state]} ${seconds(performance.now() - this.#began)}`);
    this.#stopButton.hidden = true;
    this.#close.hidden = false;
    if (state !== "failed") return null;
    this.#fail(failure);
    return failure;
  }

  #know(id) {
    if (!id || id === this.#id) return;
    this.#id = this.#name.textContent = id;
    this.#share.hidden = this.#foot.hidden = false;
  }

  #tell(text) {
    if (this.#state.textContent !== text) this.#state.textContent = text;
  }

  #take(item) {
    const at = performance.now() - this.#began;
    this.#tell("Streaming");
    this.#raw.hidden = false;
    this.#events.add(item, at);
    if (this.#call.view !== "run") this.#plot.add(at);
    if (!item) return; // there is nothing to show of null
    if (item.type === "rollback") {
      this.#show.clear();
      this.#say({ message: `Attempt ${item.attempt} begins; what came before does not count.` });
    } else this.#show.add(item);
    for (const line of [item.logs ?? []].flat()) this.#say(line);
    if (typeof item.message === "string" && at - this.#spokenAt > SPEAK_EVERY_MS) {
      this.#spokenAt = at;
      this.#spoken.textContent = item.message;
    }
  }

  #say(line) {
    const { timestamp, message = line } = line ?? {};
    this.#logs.hidden = false;
    this.#log.append(`${timestamp?.slice?.(11, 19) ?? ""} ${message}\n`);
    if (this.#log.childNodes.length > LOG_LINES_MAX) this.#log.firstChild.remove();
  }

  #fail({ errorType, message, retryable }) {
    this.#failure.hidden = false;
    this.#failure.append(h("strong", errorType ?? "error"), h("p", message),
      retryable ? h("p.quiet", "The same call may work another time.") : "");
  }

  /** Links to this request: by its id for who has a key, with a token for who has none. */
  #offerLinks() {
    const { app, needsKey, token: isGuest } = this.#call;
    this.#links.hidden = !this.#links.hidden;
    this.#share.setAttribute("aria-expanded", !this.#links.hidden);
    const link = (more) => `${location.origin}/${app}#${new URLSearchParams({ request: this.#id, ...more })}`;
    const field = h("input", { id: newId("link"), type: "text", readOnly: true, value: link(), onfocus: () => field.select() });
    const note = h("p.hint", { role: "status" }, needsKey ? "For who has this key." : "While it runs, and for a while after.");
    const open = button("Make it work without a key", () => tokenFor(app, this.#id).then(({ token }) => {
      field.value = link({ token });
      note.textContent = "For anybody, for an hour: it shows this one request, and opens nothing else.";
    }, (error) => { note.textContent = error.message; }));
    this.#links.replaceChildren(h("label", { for: field.id }, "Link to watch this request"),
      h("div.row-of", field, copyButton(() => field.value)), note, needsKey && !isGuest ? open : "");
  }
}
