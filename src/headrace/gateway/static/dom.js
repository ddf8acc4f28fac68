// Elements in one expression, and work for the screen done once a frame.

/**
 * Make an element: `h("p.quiet", { id }, "text", …)`. What is given is properties, but for listeners (`onclick`) and
 * attributes (whatever has a dash, `role`, `for`); it may be left out. A button submits nothing unless it says so.
 */
export function h(name, given = {}, ...children) {
  if (Object.getPrototypeOf(given) !== Object.prototype) return h(name, {}, given, ...children);
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  element.classList.add(...classes);
  if (tag === "button") element.type = "button";
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role" || key === "for") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.flat(Infinity).filter((child) => (child ?? false) !== false));
  return element;
}

let serial = 0;

export const newId = (word) => `${word}-${++serial}`;

/** Do a job. What it throws is reported like any fault of the page's, and stops nothing else. */
export function attempt(job) {
  try {
    job();
  } catch (error) { reportError(error); }
}

const waiting = new Set();

function work() {
  const now = [...waiting];
  waiting.clear();
  now.forEach(attempt);
}

/** Run `job` with the next frame, once however often it is asked for. */
export function nextFrame(job) {
  // A hidden page has no frames, and must not hoard what it is told until it is looked at.
  if (waiting.size === 0) document.hidden ? setTimeout(work, 200) : requestAnimationFrame(work);
  waiting.add(job);
}

/** The URL if a page may show or link it, else null: a model's word must not become a script. */
export function safeUrl(text) {
  const url = text && typeof text === "string" && URL.canParse(text, location.href) && new URL(text, location.href);
  return url && ["https:", "http:", "data:", "blob:"].includes(url.protocol) ? url.href : null;
}

export function copyButton(text) {
  const button = h("button.small", { onclick: async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy by hand"; // a page by plain http from elsewhere may not
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2_000);
  } }, "Copy");
  return button;
}

/** Milliseconds as a person reads them. */
export function seconds(ms) {
  if (ms < 1_000) return ms < 1 ? "<1 ms" : `${Math.round(ms)} ms`;
  return `${(ms / 1_000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

export const count = (number) => number.toLocaleString("en");
