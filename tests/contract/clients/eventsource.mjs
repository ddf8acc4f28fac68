// Node's own EventSource at the URL that is the argument, told as lines of JSON, for
// tests/contract/test_official_attach.py. Nothing but the end of the connection for good ends this program: Node alone
// would leave while the source waits to connect again.
const source = new EventSource(process.argv.at(-1));
const staying = setInterval(() => source.readyState === EventSource.CLOSED && clearInterval(staying), 50);

const tell = (line) => console.log(JSON.stringify(line));

process.on("exit", () => tell({ stalled_s: stalledS() }));

source.onopen = () => tell({ open: true });
source.onmessage = ({ data, lastEventId }) => tell({ item: JSON.parse(data), id: lastEventId });
source.addEventListener("error", ({ data, lastEventId }) => {
  if (data !== undefined) tell({ failure: JSON.parse(data).error, id: lastEventId });
  else tell({ lost: source.readyState === EventSource.CLOSED ? "for good" : "for now" });
});
