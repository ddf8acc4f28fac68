// The same call as curl, Python and JavaScript: texts that work when they are pasted. The key is never in them.
import { copyButton, h } from "./dom.js";

const json = (value) => JSON.stringify(value, null, 2);

/** By language: the text of {endpoint, view, input, server, needsKey} and what `withTarget` adds. */
const LANGUAGES = {
  curl({ endpoint, view, input, server, needsKey }) {
    const body = json(input).replaceAll("'", `'\\''`).replaceAll("\n", "\n  ");
    const key = needsKey ? '-H "Authorization: Key $HEADRACE_KEY"' : "";
    return [
      `curl ${view === "stream" ? "-N " : ""}${server}${endpoint.views[view]}`, key, "-H 'Content-Type: application/json'", `-d '${body}'`,
    ].filter(Boolean).join(" \\\n  ");
  },

  Python({ id, isWhole, view, input, server }) {
    const call = `(${json(id)}, ${python(input)}${isWhole ? ', path=""' : ""})`;
    const uses = {
      stream: `for event in client.stream${call}:\n    print(event)`,
      run: `print(client.run${call})`,
      queue: `handle = client.submit${call}\nprint(handle.request_id)\nprint(handle.get())`,
    };
    return `import headrace\n\nclient = headrace.Client(url=${json(server)})\n${uses[view]}`;
  },

  JavaScript({ id, isWhole, view, input, server, needsKey }) {
    const call = `(${json(id)}, { input: ${json(input)}${isWhole ? ', path: ""' : ""} })`;
    const uses = {
      stream: `const stream = await fal.stream${call};\nfor await (const event of stream) console.log(event);`,
      run: `const { data } = await fal.run${call};\nconsole.log(data);`,
      queue: `const { request_id } = await fal.queue.submit${call};\nconsole.log(request_id);`,
    };
    const settings = `{ baseUrl: ${json(server)}${needsKey ? ', credentials: "…"' : ""} }`;
    return `import { fal } from ${json(`${server}/sdk/headrace.js`)};\n\nfal.config(${settings});\n${uses[view]}`;
  },
};

/** With the id that a client is called with, and whether it is the whole path of a stream. */
function withTarget(call) {
  const id = call.endpoint.views[call.view].replace(/^\/(queue\/)?/, "");
  if (call.view !== "stream") return { ...call, id };
  return { ...call, id: id.replace(/\/stream$/, ""), isWhole: !id.endsWith("/stream") };
}

function python(value, indent = "") {
  const inner = `${indent}    `;
  const block = ([open, close], rows) => `${open}\n${rows.map((row) => `${inner}${row},\n`).join("")}${indent}${close}`;
  if (value === null || typeof value === "boolean") return { null: "None", true: "True", false: "False" }[value];
  if (typeof value !== "object" || Object.keys(value).length === 0) return JSON.stringify(value);
  if (Array.isArray(value)) return block("[]", value.map((one) => python(one, inner)));
  return block("{}", Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${python(one, inner)}`));
}

/** The panel. `call()` returns the call as the form has it now; it throws while the form has none. */
export function snippets(call) {
  let language = "curl";
  const code = h("code");
  const choose = (name) => () => { language = name; update(); };
  const tabs = Object.keys(LANGUAGES).map((name) => h("button.tab", { onclick: choose(name) }, name));
  const update = () => {
    for (const tab of tabs) tab.setAttribute("aria-pressed", tab.textContent === language);
    try {
      code.textContent = LANGUAGES[language](withTarget(call()));
    } catch { /* the last call that was one stays */ }
  };
  const element = h("section.panel.snippets", { "aria-labelledby": "same-call" },
    h("header", h("h2", { id: "same-call" }, "The same call"),
      h("div.tools", tabs, copyButton(() => code.textContent))),
    h("pre", { tabIndex: 0, role: "group", "aria-labelledby": "same-call" }, code));
  return { element, update };
}
