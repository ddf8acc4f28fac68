// Node's own EventSource at the URL that is the argument, told as lines of JSON, for
// tests/contract/test_official_attach.py. Nothing but the end of the connection for good ends this program: Node alone
// would leave while the source waits to connect again.
const source = new EventSource(process.argv.at(-1));
const staying = setInterval(() => source.readyState === EventSource.CLOSED && clearInterval(staying), 50);

const tell = (line) => console.log(JSON.stringify(line));

// The longest that this program was held up: who is held up for as long as the server's cut takes loses what was behind.
let [lookedAt, stalledMs] = [performance.now(), 0];
const look = () => {
  const now = performance.now();
  [stalledMs, lookedAt] = [Math.max(stalledMs, now - lookedAt), now];
};
setInterval(look, 10).unref();
process.on("exit", () => {
  look();
  tell({ stalled_s: stalledMs / 1000 });
});

source.onopen = () => tell({ open: true });
source.onmessage = ({ data, lastEventId }) => tell({ item: JSON.parse(data), id: lastEventId });
source.addEventListener("error", ({ data, lastEventId }) => {
  if (data !== undefined) tell({ failure: JSON.parse(data).error, id: lastEventId });
  else tell({ lost: source.readyState === EventSource.CLOSED ? "for good" : "for now" });
});
