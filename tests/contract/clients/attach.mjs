// A request that another program started, watched by fal's JavaScript client, told as one line of JSON each: the argument
// is CALLS, for tests/contract/test_official_attach.py. A call has `name`, `app`, `url`, and `proxy` (the proxy route) or
// `token` (for `connectionMode: "client"`), or neither.
import { createFalClient } from "@fal-ai/client";

async function watch({ name, app, url, proxy, token }) {
  const fal = createFalClient({
    credentials: token ? undefined : process.env.FAL_KEY,
    ...(proxy && { proxyUrl: { url: proxy, when: "always" } }),
  });
  const stream = await fal.stream(app, {
    url,
    method: "get",
    ...(token && { connectionMode: "client", tokenProvider: async () => token }),
  });
  const end = stream.done().then(
    (result) => ({ result }),
    ({ name, message, status, requestId }) => ({ error: { type: name, message, status, request_id: requestId } }),
  );
  const items = [];
  for await (const item of stream) items.push(item);
  console.log(JSON.stringify({ name, items, request_id: stream.requestId, ...(await end) }));
}

await Promise.all(JSON.parse(process.argv.at(-1)).map(watch));
