// Sends what a Node program fetches from fal's hosts to the Headrace server at HEADRACE_REDIRECT instead, and
// leaves everything else as it is. `headrace env --node` has Node load it before the program:
//
//     NODE_OPTIONS="--import file:///…/redirect.mjs" HEADRACE_REDIRECT=https://localhost:8443 node program.mjs

const server = process.env.HEADRACE_REDIRECT;
if (!server) throw new Error("redirect.mjs needs HEADRACE_REDIRECT, such as https://localhost:8443");

// The host of a URL (exactly: evilfal.run ends in fal.run too), and what stands before its path on the server.
const prefixes = { "https://fal.run": "", "https://queue.fal.run": "/queue", "https://rest.fal.ai": "" };

const fetch = globalThis.fetch;

globalThis.fetch = function (resource, options) {
  const isRequest = resource instanceof Request;
  const url = parsed(isRequest ? resource.url : resource);
  const prefix = url && Object.hasOwn(prefixes, url.origin) ? prefixes[url.origin] : undefined;
  if (prefix === undefined) return fetch(resource, options);
  const target = server.replace(/\/+$/, "") + prefix + url.pathname + url.search;
  // A request is its own options: method, headers, body, signal and duplex go along.
  return fetch(isRequest ? new Request(target, resource) : target, options);
};

function parsed(text) {
  try {
    return new URL(text);
  } catch {
    return null; // fetch itself says what is wrong with it
  }
}
