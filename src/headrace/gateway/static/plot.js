// The figures of a stream and a picture of its gaps, in constant space however long it goes on.
import { count, h, nextFrame, seconds } from "./dom.js";

const COLUMNS = 120;

export class Plot {
  #columns = new Float64Array(COLUMNS); // the longest gap in each column of time
  #columnMs = 10;
  #count = 0;
  #first = 0;
  #last = 0;
  #longest = 0;
  #canvas = h("canvas.gaps", { role: "img", "aria-label": "Gaps between events over time" });
  #figures = h("dl.figures");
  element = h("div.plot", { hidden: true }, this.#figures, this.#canvas);

  /** An event came `at` milliseconds after the start. What is before the first is no gap. */
  add(at) {
    if (this.#count === 0) this.#first = this.#last = at;
    const gap = at - this.#last;
    while (this.#columnOf(at) >= COLUMNS) this.#halve();
    // A gap is as wide as it is long: a stall is a block, and steady tokens are a level line.
    for (let column = this.#columnOf(this.#last); column <= this.#columnOf(at); column++) {
      this.#columns[column] = Math.max(this.#columns[column], gap);
    }
    this.#count += 1;
    this.#last = at;
    this.#longest = Math.max(this.#longest, gap);
    nextFrame(this.#draw);
  }

  #columnOf(at) {
    return Math.floor((at - this.#first) / this.#columnMs);
  }

  #halve() {
    this.#columns = this.#columns.map((_, at, all) => Math.max(all[at * 2] ?? 0, all[at * 2 + 1] ?? 0));
    this.#columnMs *= 2;
  }

  #draw = () => {
    const isMany = this.#count > 2;
    const perSecond = ((this.#count - 1) * 1_000) / (this.#last - this.#first);
    const figures = {
      "first event": seconds(this.#first), events: count(this.#count),
      ...(isMany && { "per second": count(Number(perSecond.toPrecision(2))), "longest gap": seconds(this.#longest) }),
    };
    this.#figures.replaceChildren(...Object.entries(figures).map(([name, value]) => h("div", h("dt", name), h("dd", value))));
    this.element.hidden = false;
    this.#canvas.hidden = !isMany;
    if (isMany) this.#paint(this.#canvas);
  };

  /** As high as the longest gap at that time; the root of it, or one long gap would flatten all others. */
  #paint(canvas) {
    const { clientWidth: width, clientHeight: height } = canvas;
    const columns = this.#columnOf(this.#last) + 1;
    canvas.width = width * devicePixelRatio; // which also clears it
    canvas.height = height * devicePixelRatio;
    const brush = canvas.getContext("2d");
    brush.scale(devicePixelRatio, devicePixelRatio);
    brush.fillStyle = brush.strokeStyle = getComputedStyle(canvas).color;
    brush.moveTo(0, height);
    for (let at = 0; at < columns; at++) {
      const y = height - Math.sqrt(this.#columns[at] / this.#longest) * (height - 2);
      brush.lineTo((at * width) / columns, y);
      brush.lineTo(((at + 1) * width) / columns, y);
    }
    brush.stroke();
    brush.lineTo(width, height);
    brush.globalAlpha = 0.15;
    brush.fill();
  }
}
