// The fields that hold one value each, made of {name, label, schema, required}. A field is {element, get, set, fail}:
// `get` returns undefined for what is left empty, `fail(message)` marks it and `fail("")` unmarks it.
import { h, newId } from "./dom.js";
import { mediaOf, startOf } from "./schema.js";

/** A label, the control, a hint, and room for what is wrong with it. */
export function framed({ name, label, schema }, control, around = control) {
  control.id = newId(name);
  const problem = h("p.problem", { id: newId(name) });
  const hint = h("p.hint", { id: newId(name) }, schema.description ?? "");
  control.setAttribute("aria-describedby", `${hint.id} ${problem.id}`);
  return {
    element: h("div.field", h("label", { for: control.id }, label), around, hint, problem),
    fail(message) {
      problem.textContent = message;
      control.setAttribute("aria-invalid", message !== "");
    },
  };
}

const textual = (tag, more) => (given) => {
  const { schema, required } = given;
  const control = h(tag, { autocomplete: "off", maxLength: schema.maxLength, required, value: startOf(schema) ?? "", ...more });
  return {
    ...framed(given, control),
    get: () => (control.value === "" && !required ? undefined : control.value),
    set: (value) => { control.value = value ?? ""; },
  };
};

// A slider over four thousand million seeds would help nobody.
const SLIDER_STEPS_MAX = 100_000;

function number(given) {
  const { label, schema, required } = given;
  const isWhole = schema.type === "integer";
  const step = schema.multipleOf ?? (isWhole ? 1 : "any");
  const beside = isWhole ? 1 : 0; // of a number that may come near a bound and not reach it, the server is the judge
  const min = schema.minimum ?? (schema.exclusiveMinimum === undefined ? undefined : schema.exclusiveMinimum + beside);
  const max = schema.maximum ?? (schema.exclusiveMaximum === undefined ? undefined : schema.exclusiveMaximum - beside);
  const input = h("input", { type: "number", step, min, max, required, value: startOf(schema) ?? "" });
  const get = () => (input.value === "" ? undefined : input.valueAsNumber);
  const set = (value) => { input.value = value ?? ""; };
  if (!(max - min <= SLIDER_STEPS_MAX)) return { ...framed(given, input), get, set };
  const slider = h("input", {
    type: "range", min, max, step: step === "any" ? (max - min) / 200 : step, "aria-label": `${label}, slider`,
    oninput: () => set(Number(Number(slider.value).toPrecision(6))),
  });
  const follow = () => { slider.value = input.value || min; };
  input.addEventListener("input", follow);
  follow();
  return { ...framed(given, input, h("div.ranged", slider, input)), get, set: (value) => { set(value); follow(); } };
}

function boolean(given) {
  const { schema, required } = given;
  const start = startOf(schema);
  // A switch cannot be left out.
  if (!required && start === undefined) return choice({ ...given, schema: { ...schema, enum: [true, false] } });
  const box = h("input.switch", { type: "checkbox", checked: start === true });
  const field = framed(given, box);
  field.element.classList.add("field-switch");
  return { ...field, get: () => box.checked, set: (value) => { box.checked = value === true; } };
}

/** The value of what is chosen is its place among the labels. */
export const selectOf = (labels, required) => h("select",
  required ? [] : h("option", { value: "" }, "–"), labels.map((label, at) => h("option", { value: at }, `${label}`)));

function choice(given) {
  const { schema, required } = given;
  const select = selectOf(schema.enum, required);
  const set = (value) => { select.selectedIndex = Math.max(0, schema.enum.indexOf(value) + (required ? 0 : 1)); };
  set(startOf(schema));
  return { ...framed(given, select), get: () => schema.enum[select.value], set };
}

const fixed = ({ schema }) => ({ element: "", get: () => schema.const, set() {}, fail() {} });

function json(given) {
  const area = h("textarea.code", { spellcheck: false });
  const set = (value) => { area.value = value === undefined ? "" : JSON.stringify(value, null, 2); };
  set(startOf(given.schema));
  const field = framed({ ...given, label: `${given.label} (JSON)` }, area);
  return {
    ...field,
    set,
    get() {
      field.fail("");
      try {
        return area.value.trim() === "" ? undefined : JSON.parse(area.value);
      } catch (error) {
        field.fail(`This is not JSON: ${error.message}`);
        throw error;
      }
    },
  };
}

/** A URL, or a file that is uploaded and becomes one: `given.upload(file)` gives the promise of it. */
function file(given) {
  const { name, label, schema, required, upload } = given;
  const input = h("input", { type: "text", inputMode: "url", required, placeholder: "A URL, or drop a file" });
  const picker = h("input", { type: "file", hidden: true, accept: mediaOf(schema, name), onchange: () => take(picker.files[0]) });
  const choose = h("button.small", { "aria-label": `${label}: choose a file`, onclick: () => picker.click() }, "Choose");
  const state = h("p.hint", { role: "status" });
  const over = (isOver) => (event) => { event.preventDefault(); drop.classList.toggle("over", isOver); };
  const drop = h("div.drop", {
    ondragover: over(true), ondragleave: over(false),
    ondrop: (event) => { over(false)(event); take(event.dataTransfer.files[0]); },
  }, input, choose, picker, state);
  const field = framed(given, input, drop);
  const set = (value) => { input.value = value?.url ?? value ?? ""; };
  set(startOf(schema));

  async function take(one) {
    if (!one) return;
    field.fail("");
    state.textContent = `${one.name} is on its way …`;
    try {
      set(await upload(one));
      state.textContent = `${one.name} is uploaded.`;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    } catch (error) {
      state.textContent = "";
      field.fail(`${one.name} was not uploaded: ${error.message}`);
    }
    picker.value = "";
  }

  const valueOf = (url) => (schema.type === "object" ? { url } : url);
  return { ...field, get: () => (input.value === "" ? undefined : valueOf(input.value)), set };
}

/** By kind. */
export const FIELDS = {
  boolean, const: fixed, enum: choice, file, json, number, line: textual("input", { type: "text" }), text: textual("textarea", { rows: 3 }),
};
