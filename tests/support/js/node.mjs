// The SDK for JavaScript in one Node for many tests: each line that comes in is a script to run, each line that goes out
// what became of it. Scripts see `sdk`, what was `given`, and `read`. The argument is the SDK's address.
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

// While Node's fetch has not loaded its parser, which it does for its first connection, one that is closed at once makes
// it wait for ever (undici 6.24). That is not what the tests are about, so here it has a first one.
const server = createServer((_, response) => response.end()).listen(0, "127.0.0.1");
await once(server, "listening");
await fetch(`http://127.0.0.1:${server.address().port}`).then((response) => response.text());
server.closeAllConnections();
server.close();

const sdk = await import(process.argv.at(-1));
const AsyncFunction = (async () => {}).constructor;

const told = (error) => ({ ...error, name: error.name, message: error.message, fields: error.fieldErrors });

/** Reads a stream to its end, or leaves it behind so many items. */
async function read({ url, call = "stream", id = "me/app", options = {}, leaveAfter }) {
  const fal = sdk.createFalClient({ baseUrl: url, credentials: "id:secret" });
  const outcome = { items: [], requestId: null, error: null };
  try {
    const stream = await fal[call](id, options);
    try {
      for await (const item of stream) {
        outcome.items.push(item);
        if (outcome.items.length === leaveAfter) break;
      }
    } finally {
      outcome.requestId = stream.requestId;
    }
  } catch (error) {
    outcome.error = told(error);
  }
  return outcome;
}

createInterface({ input: process.stdin }).on("line", async (line) => {
  const { number, script, given } = JSON.parse(line);
  const run = new AsyncFunction("sdk", "given", "read", script);
  const outcome = await run(sdk, given, read).then((value) => ({ value }), (error) => ({ error: told(error) }));
  console.log(JSON.stringify({ number, ...outcome }));
});
