// A stream shown as what it is: text that grows, pictures that sharpen, progress, sound, and facts.
import { count, h, nextFrame, safeUrl } from "./dom.js";

const PIECES = ["delta", "token"];
const TEXTS = ["text", "output"];
const PICTURES = ["images", "image", "preview"];
const SHOWN = new Set([...PIECES, ...PICTURES, "audio", "video", "progress", "message", "logs"]);
const FACTS_MAX = 40;

const part = (name, ...inside) => h(`div.${name}`, { hidden: true }, inside);
const textIn = (item, names) => names.map((name) => item[name]).find((value) => typeof value === "string");
const lastWith = (items, names) => items.findLast((item) => names.some((name) => (item[name] ?? null) !== null));

export class Show {
  #items = []; // told, and not yet on the screen
  #letters = "";
  #pieces = 0;
  #isPercent = null;
  #frames = [];
  #progress = part("progress", h("progress", { max: 1, "aria-label": "Progress" }), h("span"));
  #pictures = part("pictures");
  #node = document.createTextNode("");
  #text = h("div.text", { hidden: true, tabIndex: 0, role: "group", "aria-label": "Text" }, this.#node);
  #media = part("media");
  #facts = h("dl.facts");
  element = h("div.show", this.#progress, this.#pictures, this.#text, this.#media, this.#facts);

  add(item) {
    this.#items.push(item);
    nextFrame(this.#draw);
  }

  /** What was shown does not count: another attempt begins. */
  clear() {
    this.#items = [];
    this.#frames = [];
    this.#letters = this.#node.data = "";
    this.#pieces = 0;
    for (const one of [this.#pictures, this.#media, this.#facts]) one.replaceChildren();
    this.#progress.hidden = this.#text.hidden = true;
  }

  end() {
    this.#draw();
    this.#progress.hidden = true;
  }

  #draw = () => {
    const items = this.#items;
    if (items.length === 0) return;
    this.#items = [];
    this.#drawText(items);
    // Of pictures, progress and facts the last says all.
    this.#drawPictures(lastWith(items, PICTURES) ?? {});
    this.#drawMedia(lastWith(items, ["audio", "video"]) ?? {});
    this.#drawProgress(lastWith(items, ["progress", "message"]));
    this.#drawFacts(items.at(-1));
  };

  #drawText(items) {
    const shown = this.#letters;
    for (const item of items) this.#take(textIn(item, PIECES), textIn(item, TEXTS));
    const text = this.#text;
    const wasAtEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
    if (this.#letters.startsWith(shown)) this.#node.appendData(this.#letters.slice(shown.length));
    else this.#node.data = this.#letters;
    text.hidden = this.#letters === "";
    if (wasAtEnd) text.scrollTop = text.scrollHeight;
  }

  /** Some send what is new, some all there is so far, and a result repeats the whole. */
  #take(piece, text) {
    if (piece !== undefined) this.#letters += piece;
    else if (text === undefined) return;
    else if (text.startsWith(this.#letters) && (text.length > this.#letters.length || this.#pieces > 1)) this.#letters = text;
    else this.#letters += text;
    this.#pieces += 1;
  }

  #drawPictures(item) {
    const given = item.images ?? item.image ?? item.preview ?? [];
    const urls = [given].flat().map((one) => safeUrl(one?.url ?? one)).filter(Boolean);
    urls.forEach((url, at) => {
      this.#frames[at] ??= { image: this.#pictures.appendChild(h("img", { alt: `Picture ${at + 1}` })) };
      sharpen(this.#frames[at], url);
      this.#pictures.hidden = false;
    });
  }

  #drawMedia(item) {
    for (const tag of ["audio", "video"]) {
      const url = safeUrl(item[tag]?.url ?? item[tag]);
      if (!url) continue;
      const player = this.#media.querySelector(tag) ?? this.#media.appendChild(h(tag, { controls: true, "aria-label": tag }));
      // What plays is not cut short; the next one follows it.
      if (player.paused) player.src = url;
      else player.onended = () => { player.onended = null; player.src = url; player.play(); };
      this.#media.hidden = false;
    }
  }

  #drawProgress(item) {
    if (!item) return;
    const { progress: value, message } = item;
    const [bar, words] = this.#progress.children;
    if (typeof value === "number") {
      // Fractions and percents both occur.
      if (value > 1) this.#isPercent = true;
      else if (value > 0 && value < 1) this.#isPercent ??= false;
      bar.value = this.#isPercent ? value / 100 : value;
    }
    if (typeof message === "string") words.textContent = message;
    this.#progress.hidden = false;
  }

  /** What an item says beside all that. */
  #drawFacts(item) {
    const facts = Object.entries(item).filter(([name, value]) => (
      value !== null && !SHOWN.has(name) && !(TEXTS.includes(name) && typeof value === "string")));
    this.#facts.replaceChildren(...facts.slice(0, FACTS_MAX).flatMap(([name, value]) => [h("dt", name), h("dd", factOf(value))]));
  }
}

function factOf(value) {
  const url = safeUrl(value?.url);
  if (url) return h("a", { href: url, download: value.file_name ?? "" }, value.file_name ?? "file");
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 300 ? `${text.slice(0, 300)}… ${count(text.length)} letters` : text;
}

/** Show `url` once it is decoded, so that the last picture stays until then; of several that wait, the last counts. */
async function sharpen(frame, url) {
  frame.wanted = url;
  if (frame.isBusy) return;
  frame.isBusy = true;
  while (frame.wanted) {
    const next = h("img", { alt: frame.image.alt, src: frame.wanted });
    frame.wanted = null;
    try {
      await next.decode();
      frame.image.replaceWith(next);
      frame.image = next;
    } catch { /* a picture that is none: the last good one stays */ }
  }
  frame.isBusy = false;
}
