// Uploads by fal's JavaScript client, told as a line of JSON each; stdin has the calls, from test_official_uploads.py.
// A call has `name`, `content` (base64), `type`, `file_name`, and maybe `proxy` (the proxy route), `expires_in`,
// `parts` (a small file that says it is so large that it goes in so many parts), `size` (a large file of that size), or
// `run` (an app whose input the file is put into).
import { createHash } from "node:crypto";
import { text } from "node:stream/consumers";
import { createFalClient } from "@fal-ai/client";

const PART = 10 * 1024 * 1024; // the client's own

/** A file whose size is a lie, so that the client takes its way for large files. */
class Puffed extends Blob {
  constructor(content, parts, options) {
    super([content], options);
    this.parts = parts;
    this.whole = new Blob([content]);
  }
  get size() {
    return (this.parts - 1) * PART + 1;
  }
  slice(start) {
    const step = Math.ceil(this.whole.size / this.parts);
    const part = start / PART;
    return this.whole.slice(part * step, (part + 1) * step);
  }
}

function fileOf({ content, type, file_name: name, parts, size }) {
  const bytes = size ? Buffer.alloc(size, "headrace ") : Buffer.from(content, "base64");
  const file = parts ? new Puffed(bytes, parts, { type }) : new Blob([bytes], { type });
  if (name) Object.defineProperty(file, "name", { value: name });
  return { file, hash: createHash("sha256").update(bytes).digest("hex") };
}

for (const call of JSON.parse(await text(process.stdin))) {
  const fal = createFalClient({
    credentials: process.env.FAL_KEY,
    ...(call.proxy && { proxyUrl: { url: call.proxy, when: "always" } }),
  });
  const told = { name: call.name };
  try {
    const { file, hash } = fileOf(call);
    told.hash = hash;
    if (call.run) told.result = (await fal.run(call.run, { input: { file } })).data;
    else told.url = await fal.storage.upload(file, call.expires_in && { lifecycle: { expiresIn: call.expires_in } });
  } catch (error) {
    told.error = { name: error.name, message: error.message, status: error.status, body: error.body };
  }
  console.log(JSON.stringify(told));
}
