// Stands before other programs (see `module` in tests/support/official.py). The longest that the program was held up, in
// seconds: who is held up for as long as the server's cut takes loses what was behind.
const stalledS = (() => {
  let [lookedAt, longestMs] = [performance.now(), 0];
  const look = () => {
    const now = performance.now();
    [longestMs, lookedAt] = [Math.max(longestMs, now - lookedAt), now];
    return longestMs / 1000;
  };
  setInterval(look, 10).unref();
  return look;
})();

