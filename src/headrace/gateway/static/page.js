// An app's page: an endpoint's form, its views as buttons, and the requests made from here.
import { begin, hasRoom, STREAMS_MAX, upload } from "./calls.js";
import { Card } from "./card.js";
import { h } from "./dom.js";
import { formFor } from "./form.js";
import { ask, askForKey, enter, fragment, key, setFragment } from "./session.js";
import { snippets } from "./snippets.js";

const CARDS_MAX = 12; // of more, the oldest that has ended leaves
const VIEWS = {
  stream: ["Stream", "every item as it is made"],
  run: ["Run", "wait, then the last item"],
  queue: ["Queue", "kept on disk, tried again"],
};

const place = document.querySelector("main");
const app = decodeURI(location.pathname).replace(/^\/|\/$/g, "");
const nothing = h("p.empty.quiet", "What the model makes appears here while it makes it.");
const results = h("section.results", { "aria-label": "Requests" });
let cards = [];
let needsKey = true;

async function open() {
  document.title = `${app} · Headrace`;
  const problem = await enter();
  const { request, token, endpoint } = Object.fromEntries(fragment());
  begin();
  if (problem) return askForKey(place, problem);
  try {
    const [{ apps }, schema] = await Promise.all([ask("/v1/apps"), ask(`/${app}/openapi.json`)]);
    needsKey = key() !== null;
    build(apps.find(({ name, aliases }) => [name, ...aliases].includes(app)), schema, endpoint);
  } catch (error) {
    if (error.status !== 401) return place.replaceChildren(h("p.panel.notice", { role: "alert" }, error.message));
    if (!token) return askForKey(place);
    place.replaceChildren(h("h1", app), results);
  }
  if (request) start({ view: "watch", app, request, token });
}

function build(told, schema, wanted) {
  let endpoint, form, view;
  const code = snippets(() => ({ endpoint, view, input: form.get(), server: location.origin, needsKey }));
  const problem = h("p.problem", { role: "alert" });
  const panel = h("form.panel.ask", { noValidate: true, oninput: code.update, onsubmit: (event) => { event.preventDefault(); go(view); } });

  const choose = (one) => {
    endpoint = one;
    const views = Object.keys(VIEWS).filter((name) => one.views[name]);
    view = views[0];
    const { requestBody } = schema.paths[one.views[view]].post;
    form = formFor(requestBody.content["application/json"].schema, schema, upload);
    form.toggle?.addEventListener("click", code.update);
    panel.replaceChildren(
      h("header", h("h2", "Input"), form.toggle),
      one.doc === told.doc ? "" : h("p.quiet", one.doc),
      form.element, problem,
      h("div.actions", views.map((name) => h(name === view ? "button.primary" : "button", {
        onfocus: () => { view = name; code.update(); }, onclick: () => go(name),
      }, VIEWS[name][0]))),
      h("dl.hint.views", views.flatMap((name) => [
        h("dt", VIEWS[name][0]), h("dd", VIEWS[name][1], h("br"), h("code", `POST ${one.views[name]}`))])));
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", tab.textContent === one.path);
    code.update();
  };

  const go = async (name) => {
    let input;
    view = name;
    problem.textContent = "";
    form.fail("");
    try {
      input = form.get();
    } catch { return; } // it says so itself
    if (!hasRoom(name)) {
      problem.textContent = `A browser has few connections to one server, and this page has ${STREAMS_MAX} streams open. Stop one, or wait.`;
      return;
    }
    code.update();
    const failure = await start({ view, app: told.name, endpoint, input });
    if (!Array.isArray(failure?.body?.detail)) return;
    for (const { loc, msg } of failure.body.detail) if (!form.fail(msg, loc.slice(1))) problem.textContent = msg;
    panel.querySelector('[aria-invalid="true"]')?.focus();
  };

  const tabOf = (one) => h("button.tab", { onclick: () => {
    choose(one);
    setFragment(new URLSearchParams({ endpoint: one.path }));
  } }, one.path);
  const tabs = h("nav.tabs", { "aria-label": "Endpoints", hidden: told.endpoints.length < 2 }, told.endpoints.map(tabOf));
  choose(told.endpoints.find(({ path }) => path === wanted) ?? told.endpoints[0]);
  results.append(nothing);
  place.className = "app";
  place.replaceChildren(
    h("div.left", h("h1", app), h("p.quiet", told.doc), tabs, panel),
    h("div.right", results, code.element));
}

/** Put a request on the page and follow it. */
function start(call) {
  const card = new Card({ title: VIEWS[call.view]?.[0] ?? "Watching", needsKey, ...call });
  const remove = (old) => {
    old.element.remove();
    cards = cards.filter((one) => one !== old);
    if (!cards.length) results.append(nothing);
  };
  card.onClose = () => remove(card);
  nothing.remove();
  results.prepend(card.element);
  if (cards.length >= CARDS_MAX) remove(cards.find((one) => !one.isLive));
  cards.push(card);
  if (matchMedia("(max-width: 60rem)").matches) card.element.scrollIntoView();
  return card.follow();
}

open();
