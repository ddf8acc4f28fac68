// What a program in TypeScript makes of the SDK's types; checked by tests/contract/test_javascript_types.py, never run.
import { ApiError, ConnectionLost, EventDecoder, type FalStream, ValidationError, createFalClient, fal } from "./headrace.js";

interface Step { i: number }

fal.config({ baseUrl: "http://127.0.0.1:8080", credentials: async () => "a:b" });
const client = createFalClient({ fetch: globalThis.fetch });

const stream: FalStream<Step> = await fal.stream<Step>("me/app", { input: { n: 3 }, resume: true, timeout: 20_000 });
for await (const step of stream) {
  const i: number = step.i;
  // @ts-expect-error a step has no text
  step.text;
  console.log(i);
}
stream.on("data", ({ i }) => i.toFixed());
stream.on("error", (error) => error instanceof ConnectionLost && error.requestId);
// @ts-expect-error there is no such event
stream.on("message", () => {});
const last: Step = await stream.done();
stream.abort();
const id: string | null = stream.requestId;

const { data, requestId } = await client.run<{ total: number }>("me/app", { input: {}, priority: "low" });
const total: number = data.total + last.i;
// @ts-expect-error there are two priorities
await client.run("me/app", { priority: "high" });

await fal.attach("me/app", { requestId: requestId ?? "", lastEventId: "x.1.2", token: "t" });
// @ts-expect-error a request has an id
await fal.attach("me/app", {});

const result = await fal.subscribe("me/app", {
  input: { image: new Blob([]) },
  mode: "streaming",
  logs: true,
  onEnqueue: (id) => id.length,
  onQueueUpdate: (update) => update.status === "IN_QUEUE" && update.queue_position,
  webhookUrl: "https://example.org/hook",
  abortSignal: AbortSignal.timeout(1_000),
});
const submitted = await fal.queue.submit("me/app", { input: {}, hint: "runner-1", startTimeout: 5 });
await fal.queue.cancel("me/app", { requestId: submitted.request_id });
for await (const status of await fal.queue.streamStatus("me/app", { requestId: submitted.request_id })) status.logs?.length;
const url: string = await fal.storage.upload(new File([], "a.png"));

try {
  await fal.queue.result("me/app", { requestId: submitted.request_id });
} catch (error) {
  if (error instanceof ValidationError) error.fieldErrors.map(({ loc, msg }) => [loc.join("."), msg]);
  else if (error instanceof ApiError) console.log(error.status, error.errorType, error.retryable, error.retryAfter);
}

const events: { type: string; data: string; id: string }[] = new EventDecoder("").feed(new Uint8Array());
export { events, id, result, total, url };
