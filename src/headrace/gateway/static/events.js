// The raw events with their times: a long list, of which only what is in view is in the document.
import { count, h, nextFrame, seconds } from "./dom.js";

const ROW_PX = 22;
// What is kept of a stream: a picture in a data URL is a hundred thousand letters, a token ten.
const EVENTS_MAX = 5_000;
const LETTERS_MAX = 4_000_000;

export class Events {
  #kept = [];
  #letters = 0;
  #count = 0;
  #rows = h("div.rows");
  #space = h("div", this.#rows);
  #head = h("p.quiet");
  #list = h("div.events-list", {
    tabIndex: 0, role: "group", "aria-label": "Raw events with their times",
    onscroll: () => nextFrame(this.#draw),
  }, this.#space);
  element = h("div.events", this.#head, this.#list);

  add(item, at) {
    const text = JSON.stringify(item);
    this.#count += 1;
    this.#letters += text.length;
    this.#kept.push({ at, text });
    nextFrame(this.#draw);
  }

  #trim() {
    let out = 0;
    while (this.#kept.length - out > EVENTS_MAX || (this.#letters > LETTERS_MAX && out < this.#kept.length - 1)) {
      this.#letters -= this.#kept[out++].text.length;
    }
    this.#kept.splice(0, out);
  }

  #draw = () => {
    this.#trim();
    const list = this.#list;
    const wasAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - ROW_PX;
    this.#space.style.height = list.style.height = `${this.#kept.length * ROW_PX}px`; // the list's up to its max-height
    if (wasAtEnd) list.scrollTop = list.scrollHeight;
    const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - 2);
    const inView = this.#kept.slice(first, first + Math.ceil(list.clientHeight / ROW_PX) + 4);
    this.#rows.style.transform = `translateY(${first * ROW_PX}px)`;
    this.#rows.replaceChildren(...inView.map(({ at, text }) => h("div.row", h("span.at", seconds(at)), h("code", short(text)))));
    const left = this.#count - this.#kept.length;
    this.#head.textContent = `${count(this.#count)} event${this.#count === 1 ? "" : "s"}${left ? `, the first ${count(left)} left out here` : ""}`;
  };
}

/** Of numbers what counts, of long texts the beginning. */
const short = (text) => JSON.stringify(JSON.parse(text), (_, value) => {
  if (typeof value === "number") return Number(value.toPrecision(4));
  return value?.length > 200 && value.slice ? `${value.slice(0, 40)}… ${count(value.length)}` : value;
});
