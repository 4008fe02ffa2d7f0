/**
 * Small time plots: a fixed amount of memory per field, drawn only while they are seen.
 * @module plot
 */

/** How much time a plot shows. */
export const WINDOW_MS = 180_000;
/** The values within this time are one point of a plot. */
export const BUCKET_MS = 500;
/** Points further apart than this aren’t joined, unless the channel may be silent for longer. */
const BREAK_MS = 6_000;
/** How often plots move on. */
const REDRAW_MS = 500;
/** How much of a frame drawing may take. */
const BUDGET_MS = 4;

/** The last minutes of one field: the smallest, largest and last value of each half second, in a ring. */
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
   * The points within the window that ends at `now`, oldest first.
   * @param {number} now
   * @returns {Generator<{time: number, min: number, max: number, last: number}>}
   */
  *points(now) {
    const end = Math.floor(now / BUCKET_MS);
    for (let bucket = end - this.#size + 1; bucket <= end; bucket += 1) {
      const index = bucket % this.#size;
      if (this.#bucket[index] !== bucket) continue;
      yield { time: bucket * BUCKET_MS, min: this.#min[index], max: this.#max[index], last: this.#last[index] };
    }
  }

  /**
   * The smallest and largest value within the window.
   * @param {number} now
   * @returns {{min: number, max: number}|null} null without values
   */
  range(now) {
    let range = null;
    for (const { min, max } of this.points(now)) {
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
 * The scale of a plot: the range, but never so narrow that noise looks like drama.
 * @param {{min: number, max: number}} range
 * @param {number} decimals
 */
export function scaleOf({ min, max }, decimals) {
  const middle = (min + max) / 2;
  const least = Math.max(4 * 10 ** -decimals, Math.abs(middle) * 0.01);
  const half = Math.max(max - min, least) / 2;
  return { low: middle - half * 1.1, high: middle + half * 1.1 };
}

/** One field's plot. */
export class Plot {
  history = new History();
  visible = false;
  /** @type {{stroke: string, fill: string}|null} */
  colours = null;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {{decimals: number, area: boolean, silenceMs: number, onRange: (range: {min: number, max: number}|null) => void}} options
   */
  constructor(canvas, options) {
    this.canvas = canvas;
    this.options = options;
  }

  /** @param {number} now */
  draw(now) {
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
    const range = history.range(now);
    options.onRange(range);
    if (!range) return;
    const { low, high } = scaleOf(range, options.decimals);
    const x = (/** @type {number} */ time) => width - 3 - ((now - time) / WINDOW_MS) * (width - 3);
    const y = (/** @type {number} */ value) => 2 + (1 - (value - low) / (high - low)) * (height - 4);
    context.lineWidth = options.area ? 2 : 1.5;
    context.lineJoin = 'round';
    context.strokeStyle = this.colours.stroke;
    context.fillStyle = this.colours.fill;
    /** @type {{time: number, min: number, max: number, last: number}[]} */
    let run = [];
    const flush = () => {
      if (run.length === 0) return;
      context.beginPath();
      run.forEach((p, i) => (i ? context.lineTo(x(p.time), y(p.max)) : context.moveTo(x(p.time), y(p.max))));
      if (options.area) {
        context.lineTo(x(run[run.length - 1].time), height);
        context.lineTo(x(run[0].time), height);
      } else for (let i = run.length - 1; i >= 0; i -= 1) context.lineTo(x(run[i].time), y(run[i].min));
      context.closePath();
      context.fill();
      context.beginPath();
      run.forEach((p, i) => (i ? context.lineTo(x(p.time), y(p.last)) : context.moveTo(x(p.time), y(p.last))));
      if (run.length === 1) context.lineTo(x(run[0].time) + 1, y(run[0].last));
      context.stroke();
    };
    for (const point of history.points(now)) {
      if (run.length > 0 && point.time - run[run.length - 1].time > Math.max(BREAK_MS, options.silenceMs)) {
        flush();
        run = [];
      }
      run.push(point);
    }
    flush();
    const end = run[run.length - 1];
    context.beginPath();
    context.arc(x(end.time), y(end.last), options.area ? 3 : 2, 0, 2 * Math.PI);
    context.fillStyle = this.colours.stroke;
    context.fill();
  }

  /** Gives the canvas's memory back. */
  hide() {
    this.visible = false;
    this.canvas.width = this.canvas.height = 0;
  }
}

/** Draws the plots that are seen, twice a second, a few per frame. */
export class PlotBoard {
  /** @type {Map<Element, Plot>} */
  #plots = new Map();
  /** @type {Plot[]} */
  #queue = [];
  #frame = 0;
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
    while (this.#queue.length > 0 && performance.now() < until) this.#queue.pop()?.draw(now);
    if (this.#queue.length > 0) this.#frame = requestAnimationFrame(() => this.#draw());
  }
}
