// What a JSON schema asks of a form.

/** The kind of field, the schema without references and `null`, and whether it had a `null`. */
export function read(given, root, name = "") {
  const { schema, nullable } = withoutNull(follow(given, root), root);
  return { kind: kindOf(schema, root, name), schema, nullable };
}

/** Follow references; what stands beside one wins. */
export function follow(schema = {}, root) {
  const { $ref, ...beside } = schema;
  if ($ref === undefined) return schema;
  const found = $ref.slice(2).split("/").reduce((part, name) => part[name], root);
  return follow({ ...found, ...beside }, root);
}

function withoutNull({ anyOf, oneOf, ...beside }, root) {
  const branches = (anyOf ?? oneOf)?.map((branch) => follow(branch, root));
  if (!branches) return { schema: beside, nullable: false };
  const kept = branches.filter((branch) => branch.type !== "null");
  const schema = kept.length === 1 ? { ...kept[0], ...beside } : { ...beside, anyOf: kept };
  return { schema, nullable: kept.length < branches.length };
}

// Names under which texts tend to be long, and under which there tends to be a file's URL.
const LONG = /(^|_)(prompt|text|content|instructions?|lyrics|script|caption|message|query|document)$/i;
const FILE = /(^|_)(image|audio|video|file|mask)(_url)?$|_url$/i;

function kindOf(schema, root, name) {
  if ("const" in schema) return "const";
  if (schema.enum) return "enum";
  if (isFile(schema, name)) return "file";
  if (schema.anyOf) return "union";
  switch (schema.type) {
    case "boolean": return "boolean";
    case "integer": case "number": return "number";
    case "string": return LONG.test(name) || schema.maxLength > 200 ? "text" : "line";
    case "array": return schema.items ? "list" : "json";
  }
  if (schema.properties) return "object";
  return follow(schema.additionalProperties || {}, root).type === "string" ? "pairs" : "json";
}

/** Whether a file may be dropped here, which is uploaded: a URL by its name, or a File or Image of ours. */
function isFile(schema, name) {
  if (schema.type === "string") return FILE.test(name);
  return /^(file|image|audio|video)$/i.test(schema.title);
}

export function mediaOf(schema, name) {
  const media = `${schema.title} ${name}`.match(/image|audio|video/i);
  return media ? `${media[0].toLowerCase()}/*` : "";
}

/** `guidance_scale` is "Guidance scale". */
export function labelOf(name) {
  const words = name.replace(/_url$/, "").replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** What a field begins with. */
export const startOf = (schema) => schema.default ?? schema.examples?.[0];
