// What a decoder of event streams makes of streams whose meaning is known: for Node and for browsers alike.

/** `bytes` as the pieces of every way to cut it that our parse tests know: whole, by small sizes, in two at each place. */
function* cuttings(bytes) {
  yield [bytes];
  for (const size of [1, 2, 3, 7]) {
    const pieces = [];
    for (let start = 0; start < bytes.length; start += size) pieces.push(bytes.subarray(start, start + size));
    yield pieces;
  }
  for (let cut = 0; cut <= Math.min(bytes.length, 600); cut += 1) yield [bytes.subarray(0, cut), bytes.subarray(cut)];
}

function decoded(decoder, pieces) {
  const events = pieces.flatMap((piece) => decoder.feed(piece));
  return JSON.stringify([events.map(({ type, data, id }) => [type, data, id]), decoder.lastEventId, decoder.retryMs]);
}

/** Returns how many cuttings were decoded, and those that were decoded wrongly; of each stream the first. */
export function judge(EventDecoder, cases) {
  const mistakes = [];
  let count = 0;
  for (const { name, stream, startsWithId, events, lastEventId, retryMs } of cases) {
    const bytes = Uint8Array.from(atob(stream), (character) => character.charCodeAt(0));
    const expected = JSON.stringify([events, lastEventId, retryMs]);
    for (const pieces of cuttings(bytes)) {
      const actual = decoded(new EventDecoder(startsWithId), pieces);
      count += 1;
      if (actual === expected) continue;
      mistakes.push({ name, expected, actual, pieces: pieces.map((piece) => piece.length) });
      break;
    }
  }
  return { count, mistakes };
}
