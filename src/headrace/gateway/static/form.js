// A form from a JSON schema, and the same input as raw JSON: two views of one value.
import { h } from "./dom.js";
import { FIELDS, framed, selectOf } from "./fields.js";
import { follow, labelOf, read, startOf } from "./schema.js";

// Fields before the rest is folded away, and how deep forms nest before JSON is better.
const PLAIN_MAX = 6;
const DEPTH_MAX = 4;

/** A field of any kind. `given` has {name, schema, root, required, upload}, and may have a label. */
function fieldFor(given, depth) {
  const { kind, schema, nullable } = read(given.schema, given.root, given.name);
  const make = depth > DEPTH_MAX && NESTS[kind] ? FIELDS.json : FIELDS[kind] ?? NESTS[kind];
  return make({ ...given, schema, label: given.label ?? labelOf(given.name), required: given.required && !nullable }, depth);
}

/** The fields of an object's properties, and the object as one. */
function partsOf(given, depth) {
  const { properties, required = [] } = given.schema;
  const all = Object.entries(properties).map(([name, schema]) => ({
    name,
    isUpFront: required.includes(name) || name === "prompt" || read(schema, given.root, name).kind === "file",
    field: fieldFor({ ...given, name, label: undefined, schema, required: required.includes(name) }, depth + 1),
  }));
  return {
    all,
    get() {
      const values = all.map(({ name, field }) => [name, field.get()]);
      return Object.fromEntries(values.filter(([, value]) => value !== undefined));
    },
    set(value) {
      for (const { name, field } of all) field.set(value?.[name]);
    },
    /** Mark the field at a path, or unmark all. Returns false where there is none. */
    fail(message, [next, ...path] = []) {
      const meant = all.filter(({ name }) => next === undefined ? message === "" : name === next);
      for (const { field } of meant) field.fail(message, path);
      return meant.length > 0;
    },
  };
}

const group = (label, ...inside) => h("fieldset", h("legend", label), inside);

function object(given, depth) {
  const { all, ...parts } = partsOf(given, depth);
  const get = () => {
    const value = parts.get();
    return given.required || Object.keys(value).length ? value : undefined;
  };
  return { ...parts, get, element: group(given.label, all.map(({ field }) => field.element)) };
}

function list(given, depth) {
  const items = h("div.items");
  const problem = h("p.problem");
  let fields = [];
  const add = (value) => {
    const label = `${given.label} ${fields.length + 1}`;
    const field = fieldFor({ ...given, label, schema: given.schema.items, required: true }, depth + 1);
    if (value !== undefined) field.set(value);
    const remove = h("button.small", { "aria-label": `Remove ${label}`, onclick: () => {
      row.remove();
      fields = fields.filter((one) => one !== field);
      more.focus();
    } }, "×");
    const row = h("div.item", field.element, remove);
    fields.push(field);
    items.append(row);
    return row;
  };
  const more = h("button.small", { onclick: () => add().querySelector("input, textarea, select")?.focus() }, "Add");
  const set = (values) => {
    fields = [];
    items.replaceChildren();
    for (const value of values ?? []) add(value);
  };
  set(startOf(given.schema));
  return {
    element: group(given.label, items, more, problem),
    get: () => (fields.length || given.required ? fields.map((field) => field.get()) : undefined),
    set,
    fail(message, [at, ...path] = []) {
      if (fields[at]) return fields[at].fail(message, path);
      problem.textContent = message;
      if (message === "") for (const field of fields) field.fail("");
    },
  };
}

/** An object of any names with texts, in rows. */
function pairs(given) {
  const row = { properties: { name: { type: "string" }, value: { type: "string" } }, required: ["name"] };
  const rows = list({ ...given, label: "Entry", schema: { items: row, default: [{}] } }, 0);
  rows.element.classList.add("pairs");
  return {
    ...rows,
    get: () => Object.fromEntries(rows.get().filter(({ name }) => name).map(({ name, value = "" }) => [name, value])),
    set: (all = {}) => rows.set(Object.entries(all).map(([name, value]) => ({ name, value }))),
  };
}

/** One of several: presets are choices by themselves, every other branch opens its own fields. */
function union(given, depth) {
  const choices = given.schema.anyOf.flatMap((raw) => {
    const schema = follow(raw, given.root);
    const presets = schema.enum ?? ("const" in schema ? [schema.const] : null);
    return presets?.map((value) => ({ label: value, value })) ?? { label: wordFor(schema), schema };
  });
  const select = selectOf(choices.map(({ label }) => label), given.required);
  const inner = h("div.branch");
  const own = framed(given, select, [select, inner]);
  const chosen = () => choices[select.value];
  const open = () => {
    const one = chosen();
    if (one?.schema) one.field ??= fieldFor({ ...given, label: one.label, schema: one.schema, required: true }, depth + 1);
    inner.replaceChildren(one?.field?.element ?? "");
  };
  select.addEventListener("change", open);
  const set = (value) => {
    const at = choices.findIndex((one) => (one.schema ? fits(one.schema, value) : one.value === value));
    select.value = at < 0 ? (given.required ? 0 : "") : at;
    open();
    if (at >= 0) chosen().field?.set(value);
  };
  set(startOf(given.schema));
  return {
    ...own,
    get: () => (chosen()?.schema ? chosen().field.get() : chosen()?.value),
    set,
    fail(message, path = []) {
      const { field } = chosen() ?? {};
      const isBelow = field && (message === "" || path.length);
      // The server's path has the branch's name in it, which the fields have not.
      if (isBelow) field.fail(message, path.length > 1 ? path.slice(1) : path);
      own.fail(isBelow ? "" : message);
    },
  };
}

const wordFor = ({ title, type }) => (title && type === "object" ? `${title} …` : type ?? "other");

function fits({ type }, value) {
  if ((value ?? null) === null) return false;
  const its = Array.isArray(value) ? "array" : typeof value;
  return type === undefined || type === its || (type === "integer" && its === "number");
}

const NESTS = { list, object, pairs, union };

/** The whole form. `get` throws for raw JSON that is none, which then says so. */
export function formFor(schema, root, upload) {
  const given = { name: "input", label: "Input", ...read(schema, root), root, required: true, upload };
  const raw = FIELDS.json(given);
  const fields = h("div.fields");
  let field = raw;
  if (given.kind === "object") {
    field = partsOf(given, 0);
    fields.append(...laidOut(field.all));
  } else if (given.kind !== "json") {
    field = fieldFor(given, 0);
    fields.append(field.element);
  }
  let isRaw = field === raw;
  const form = {
    element: h("div"),
    toggle: isRaw ? null : h("button.small.toggle", { onclick: () => change(!isRaw) }, "JSON"),
    get: () => (isRaw ? raw : field).get() ?? {},
    /** Mark the field at `path`, or unmark all; returns whether there was one to mark. */
    fail: (message, path) => (isRaw ? raw : field).fail(message, path) !== false,
  };
  const show = () => {
    form.toggle?.setAttribute("aria-pressed", isRaw);
    form.element.replaceChildren(isRaw ? raw.element : fields);
  };
  const change = (toRaw) => {
    try {
      (toRaw ? raw : field).set(form.get());
    } catch { return; } // the JSON is none, and says so
    isRaw = toRaw;
    show();
  };
  raw.set({});
  show();
  return form;
}

function laidOut(all) {
  const elements = (isWanted) => all.filter(isWanted).map(({ field }) => field.element);
  if (all.length <= PLAIN_MAX) return elements(() => true);
  const upFront = elements(({ isUpFront }) => isUpFront);
  const rest = elements(({ isUpFront }) => !isUpFront);
  return [...upFront, h("details", { open: upFront.length === 0 }, h("summary", `More settings (${rest.length})`), h("div.fields", rest))];
}
