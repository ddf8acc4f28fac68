// Many streams by fal's JavaScript client, all at once, for tests/support/endings.py: the last argument is a list of
// `name`, `kind` (loop or listeners), `endpoint` and `input`. What each was told is one line of JSON; an `error` is
// what `done()` rejected with, and its `threw` whether the loop itself threw.
import { fal } from "@fal-ai/client";

async function make({ name, kind, endpoint, input }) {
  const items = [];
  const stream = await fal.stream(endpoint, { input });
  const end = stream.done().then(
    (result) => ({ result }),
    ({ name, message, status, requestId }) => ({
      error: { type: name, message, status, request_id: requestId, threw: false },
    }),
  );
  if (kind === "listeners") stream.on("data", (item) => items.push(item));
  let threw = false;
  if (kind === "loop") {
    try {
      for await (const item of stream) items.push(item);
    } catch {
      threw = true;
    }
  }
  const { result = null, error = null } = await end;
  if (error) error.threw = threw;
  console.log(JSON.stringify({ name, kind, items, result, error, stalled_s: stalledS() }));
}

await Promise.all(JSON.parse(process.argv.at(-1)).map(make));
