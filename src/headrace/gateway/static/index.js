// The first page: which apps are here, and how they are.
import { h } from "./dom.js";
import { ask, askForKey, enter } from "./session.js";

const LOOK_EVERY_MS = 5_000;

const place = document.querySelector("main");
const list = h("ul.apps");
let told = "";

async function look() {
  const { apps } = await ask("/v1/apps");
  const now = JSON.stringify(apps);
  if (now === told) return; // nobody's focus is lost for nothing
  told = now;
  list.replaceChildren(...apps.map(entry));
}

function entry(app) {
  const views = new Set(app.endpoints.flatMap(({ views: all }) => Object.keys(all).filter((name) => all[name])));
  return h("li", h("a.panel", { href: `/${app.name}` },
    h("span.dot", { "data-state": app.state }), h("h2", app.name), h("span.state", app.state),
    app.doc && h("p", app.doc),
    h("p.quiet", [[...views].join(", "), ...app.aliases.map((name) => `also ${name}`)].join(" · "))));
}

async function open() {
  const problem = await enter();
  if (problem) return askForKey(place, problem);
  try {
    await look();
  } catch (error) {
    if (error.status === 401) return askForKey(place);
    return place.replaceChildren(h("p.panel.notice", { role: "alert" }, error.message));
  }
  place.replaceChildren(h("h1", "Apps"), list);
  setInterval(() => { if (!document.hidden) look().catch(() => {}); }, LOOK_EVERY_MS);
}

open();
