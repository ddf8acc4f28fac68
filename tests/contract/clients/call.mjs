// One call by fal's JavaScript client, told as lines of JSON: the arguments are KIND and CALL, for
// tests/support/official.py. KIND is run, loop (for await, as docs/how-to/official-clients.md writes it),
// listeners, or bare (for await alone). CALL has `endpoint`, `input`, and maybe `options` and `leave_after`.
import { once } from "node:events";
import { fal } from "@fal-ai/client";

const [kind, text] = process.argv.slice(-2);
const { endpoint, input, options = {}, leave_after: leaveAfter } = JSON.parse(text);

const tell = (line) => console.log(JSON.stringify(line));
const tellError = (error) =>
  tell({
    error: {
      type: error.name,
      message: error.message,
      status: error.status,
      body: error.body,
      request_id: error.requestId,
      fields: error.fieldErrors,
    },
  });

/** Stay alive until the test has seen what leaving did; the end of this process would close the stream too. */
async function linger() {
  tell({ left: true });
  process.stdin.resume();
  await once(process.stdin, "end");
}

process.on("exit", () => tell({ stalled_s: stalledS() }));

async function run() {
  const { data, requestId } = await fal.run(endpoint, { input, ...options });
  tell({ result: data, request_id: requestId });
}

async function loop() {
  const stream = await fal.stream(endpoint, { input, ...options });
  const end = stream.done().catch((error) => error);
  let count = 0;
  for await (const event of stream) {
    tell({ item: event });
    if (++count === leaveAfter) break;
  }
  if (leaveAfter) {
    stream.abort();
    await linger();
  }
  const result = await end;
  if (result instanceof Error) tellError(result);
  else tell({ result, request_id: stream.requestId });
}

async function listeners() {
  const stream = await fal.stream(endpoint, { input, ...options });
  let count = 0;
  stream.on("data", (event) => {
    tell({ item: event });
    if (++count === leaveAfter) stream.abort();
  });
  const result = await stream.done();
  if (leaveAfter) await linger();
  tell({ result, request_id: stream.requestId });
}

async function bare() {
  const stream = await fal.stream(endpoint, { input, ...options });
  let count = 0;
  for await (const event of stream) {
    tell({ item: event });
    if (++count === leaveAfter) break;
  }
  tell({ result: await stream.done() });
}

if (kind === "bare") await bare();
else await { run, loop, listeners }[kind]().catch(tellError);
