// Who this tab is. Its key lives in its sessionStorage and in the headers of its requests: in no URL, and gone with it.
import { h } from "./dom.js";

const KEY = "headrace.key";

/** What the fragment says, as in `#code=…` or `#request=…&token=…`. */
export const fragment = () => new URLSearchParams(location.hash.slice(1));

/** Write the fragment anew, without a trace of the old one. */
export function setFragment(values) {
  history.replaceState(null, "", location.pathname + (values.size ? `#${values}` : ""));
}

export const key = () => sessionStorage.getItem(KEY);

/** Ask one of the server's own routes. Throws an Error with `status` for anything but success. */
export async function ask(path, body) {
  const headers = { ...(key() && { authorization: `Key ${key()}` }), ...(body && { "content-type": "application/json" }) };
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) })
    .catch(() => { throw new Error("The server does not answer."); });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(told.detail ?? answer.statusText), { status: answer.status });
  return told;
}

/** Take the code out of the address bar and exchange it. Returns what went wrong, or null. */
export async function enter() {
  const values = fragment();
  const code = values.get("code");
  if (code === null) return null;
  values.delete("code");
  setFragment(values);
  try {
    const session = await ask("/v1/page-session", { code });
    if (session.key !== null) sessionStorage.setItem(KEY, session.key);
    return null;
  } catch (error) {
    return key() ? null : error.message; // a tab that got its key by this very link has lost nothing
  }
}

/** Ask for a key in place of the page's content, and begin again with it. */
export function askForKey(place, problem) {
  const said = problem ?? (key() && "This key is not good any more. A link's ends with the server, or after twelve hours.");
  sessionStorage.removeItem(KEY);
  const input = h("input", { id: "key", type: "password", autocomplete: "off", required: true });
  const onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value.trim());
    location.reload();
  };
  place.replaceChildren(h("form.panel.sign-in", { onsubmit },
    h("h1", "A key, please"),
    said && h("p.notice", { role: "alert" }, said),
    h("p", h("code", "headrace page"), " on the server's machine prints a link that opens this page. Or give a key:"),
    h("label", { for: "key" }, "Key"), input,
    h("button.primary", { type: "submit" }, "Open the page"),
    h("p.quiet", "It stays in this tab, and leaves with it.")));
  input.focus();
}
