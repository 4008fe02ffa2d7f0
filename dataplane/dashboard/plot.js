/**
 * Small time plots with a fixed amount of memory per field, drawn only while visible.
 * @module plot
 */

/** The longest time that a plot shows. */
export const WINDOW_MS = 180_000;
/** The shortest time that a plot shows, while there are few values. */
export const SHORTEST_WINDOW_MS = 30_000;
/** Values within this time become one point. */
export const BUCKET_MS = 500;
/** Between points further apart, the value is drawn as constant: unchanged values may not be sent. */
const HOLD_MS = 2_000;
/** The interval between redraws. */
const REDRAW_MS = 500;
/** The most time of a frame that drawing may take. */
const BUDGET_MS = 4;

/** The last minutes of a field: smallest, largest and last value of each half second, in a ring buffer. */
export class History {
  #size = Math.ceil(WINDOW_MS / BUCKET_MS) + 1;
  #bucket = new Float64Array(this.#size).fill(-1);
  #min = new Float64Array(this.#size);
  #max = new Float64Array(this.#size);
  #last = new Float64Array(this.#size);

  /**
   * @param {number} time milliseconds since 1970
   * @param {number} value
   */
  add(time, value) {
    const bucket = Math.floor(time / BUCKET_MS);
    const index = bucket % this.#size;
    if (this.#bucket[index] > bucket) return; // Older than the whole window.
    if (this.#bucket[index] < bucket) {
      this.#bucket[index] = bucket;
      this.#min[index] = this.#max[index] = value;
    } else {
      this.#min[index] = Math.min(this.#min[index], value);
      this.#max[index] = Math.max(this.#max[index], value);
    }
    this.#last[index] = value;
  }

  /**
   * Returns the points within the time that ends at `now`, oldest first.
   * @param {number} now
   * @param {number} [windowMs]
   * @returns {Generator<Point>}
   */
  *points(now, windowMs = WINDOW_MS) {
    const end = Math.floor(now / BUCKET_MS);
    for (let bucket = Math.floor((now - windowMs) / BUCKET_MS); bucket <= end; bucket += 1) {
      const index = bucket % this.#size;
      if (this.#bucket[index] !== bucket) continue;
      const time = bucket * BUCKET_MS;
      yield { time, min: this.#min[index], max: this.#max[index], last: this.#last[index] };
    }
  }

  /**
   * Returns the smallest and largest value within that time.
   * @param {number} now
   * @param {number} [windowMs]
   * @returns {{min: number, max: number}|null} null without values
   */
  range(now, windowMs) {
    let range = null;
    for (const { min, max } of this.points(now, windowMs)) {
      if (range === null) range = { min, max };
      else {
        range.min = Math.min(range.min, min);
        range.max = Math.max(range.max, max);
      }
    }
    return range;
  }
}

/**
 * Returns the scale of a plot: the range, with a minimum so that noise is not magnified.
 * @param {{min: number, max: number}} range
 * @param {number} decimals
 */
export function scaleOf({ min, max }, decimals) {
  const middle = (min + max) / 2;
  const least = Math.max(4 * 10 ** -decimals, Math.abs(middle) * 0.01);
  const half = Math.max(max - min, least) / 2;
  return { low: middle - half * 1.1, high: middle + half * 1.1 };
}

/** @typedef {{time: number, min: number, max: number, last: number}} Point */

/**
 * Draws a line through points, with the peaks of each; a value that was constant for long ends in a step.
 * @param {CanvasRenderingContext2D} context
 * @param {Point[]} run
 * @param {(time: number) => number} x
 * @param {(value: number) => number} y
 */
function trace(context, run, x, y) {
  context.beginPath();
  run.forEach((point, index) => {
    const before = run[index - 1];
    if (!before) return context.moveTo(x(point.time), y(point.last));
    if (point.time - before.time > HOLD_MS) context.lineTo(x(point.time), y(before.last));
    if (point.max > Math.max(before.last, point.last)) context.lineTo(x(point.time), y(point.max));
    if (point.min < Math.min(before.last, point.last)) context.lineTo(x(point.time), y(point.min));
    return context.lineTo(x(point.time), y(point.last));
  });
}

export class Plot {
  history = new History();
  visible = false;
  /** @type {{stroke: string, fill: string}|null} */
  colours = null;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {object} options
   * @param {number} options.decimals of the values
   * @param {boolean} options.area whether the area below the line is filled
   * @param {number} options.silenceMs points further apart are not joined
   * @param {() => boolean} options.held whether the last value still holds
   * @param {(range: {min: number, max: number}|null) => void} options.onRange called with the range shown
   */
  constructor(canvas, options) {
    this.canvas = canvas;
    this.options = options;
  }

  /**
   * @param {number} now the time at the right edge
   * @param {number} windowMs the time shown
   */
  draw(now, windowMs) {
    const { canvas, history, options } = this;
    const ratio = Math.min(globalThis.devicePixelRatio || 1, 2);
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    const context = canvas.getContext('2d');
    if (!context || width === 0 || height === 0) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      this.colours = null;
    }
    if (!this.colours) {
      const style = getComputedStyle(canvas);
      this.colours = { stroke: style.color, fill: style.getPropertyValue('--plot-fill') };
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const range = history.range(now, windowMs);
    options.onRange(range);
    if (!range) return;
    const { low, high } = scaleOf(range, options.decimals);
    const right = width - 3;
    const x = (/** @type {number} */ time) => right - ((now - time) / windowMs) * right;
    const y = (/** @type {number} */ value) => 3 + (1 - (value - low) / (high - low)) * (height - 6);
    context.lineWidth = options.area ? 2 : 1.5;
    context.lineJoin = 'round';
    context.strokeStyle = this.colours.stroke;
    context.fillStyle = this.colours.fill;
    for (const run of this.#runs(now, windowMs)) {
      const [first, last] = [run[0], run[run.length - 1]];
      if (options.area) {
        trace(context, run, x, y);
        context.lineTo(x(last.time), height);
        context.lineTo(x(first.time), height);
        context.closePath();
        context.fill();
      }
      trace(context, run, x, y);
      if (run.length === 1) context.lineTo(x(first.time) + 1, y(first.last));
      context.stroke();
      if (now - last.time > 1) continue;
      context.beginPath();
      context.arc(right, y(last.last), options.area ? 3 : 2, 0, 2 * Math.PI);
      context.fillStyle = this.colours.stroke;
      context.fill();
    }
  }

  /**
   * Groups the points into runs without a silence; a value that still holds is extended to `now`.
   * @param {number} now
   * @param {number} windowMs
   */
  #runs(now, windowMs) {
    const { silenceMs, held } = this.options;
    /** @type {Point[][]} */
    const runs = [];
    for (const point of this.history.points(now, windowMs)) {
      const run = runs[runs.length - 1];
      if (run && point.time - run[run.length - 1].time <= silenceMs) run.push(point);
      else runs.push([point]);
    }
    const run = runs[runs.length - 1];
    if (run && held()) run.push({ ...run[run.length - 1], time: now });
    return runs;
  }

  /** Releases the memory of the canvas. */
  hide() {
    this.visible = false;
    this.canvas.width = this.canvas.height = 0;
  }
}

/** Draws the visible plots twice a second, a few per frame. */
export class PlotBoard {
  /** @type {Map<Element, Plot>} */
  #plots = new Map();
  /** @type {Plot[]} */
  #queue = [];
  #frame = 0;
  /** @type {number|null} */
  #begin = null;
  #now;
  #observer;

  /** @param {() => number} now the server's clock */
  constructor(now) {
    this.#now = now;
    this.#observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const plot = this.#plots.get(target);
        if (!plot) continue;
        if (isIntersecting) plot.visible = true;
        else plot.hide();
      }
      this.#start();
    }, { rootMargin: '100px' });
    setInterval(() => this.#start(), REDRAW_MS);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      for (const plot of this.#plots.values()) plot.colours = null;
    });
  }

  /** Returns the time that plots show: that since the first value, within bounds. */
  windowMs() {
    const seen = this.#begin === null ? 0 : this.#now() - this.#begin;
    return Math.min(WINDOW_MS, Math.max(SHORTEST_WINDOW_MS, seen));
  }

  /** Records the time of a value. @param {number} time */
  seen(time) {
    // Old values of a snapshot must not extend the time shown.
    this.#begin = Math.min(this.#begin ?? Infinity, Math.max(time, this.#now() - SHORTEST_WINDOW_MS));
  }

  /** @param {Plot} plot */
  add(plot) {
    this.#plots.set(plot.canvas, plot);
    this.#observer.observe(plot.canvas);
  }

  /** @param {Plot} plot */
  remove(plot) {
    this.#observer.unobserve(plot.canvas);
    this.#plots.delete(plot.canvas);
  }

  #start() {
    if (this.#frame !== 0 || document.hidden) return;
    this.#queue = [...this.#plots.values()].filter((plot) => plot.visible);
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const until = performance.now() + BUDGET_MS;
    const now = this.#now();
    const windowMs = this.windowMs();
    while (this.#queue.length > 0 && performance.now() < until) this.#queue.pop()?.draw(now, windowMs);
    if (this.#queue.length > 0) this.#frame = requestAnimationFrame(() => this.#draw());
  }
}
