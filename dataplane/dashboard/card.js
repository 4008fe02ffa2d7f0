/**
 * The card of a device, built from the channels that `hello` describes. Nothing here depends on a kind of
 * machine.
 * @module card
 */
import { element, setData, setNumber, setText } from './dom.js';
import { label, lateText, powerOf, SIGNS, span, timeText, tone, valueText } from './format.js';
import { Plot } from './plot.js';
import { ProblemLine, ValueNotes } from './problem.js';

/** @typedef {import('./flutecast.js').Device} Device */
/** @typedef {import('./flutecast.js').Channel} Channel */
/** @typedef {import('./flutecast.js').Field} Field */
/** @typedef {{write: (values: Record<string, any>|null) => void}} Writer */
/**
 * The part of a card that shows a channel.
 * @typedef {{
 *   node: HTMLElement|null, age: HTMLElement|null, values: HTMLElement[], writers: Writer[],
 *   plots: Map<string, Plot>, notes: ValueNotes[], problem: ProblemLine
 * }} Part
 */

/** @param {Channel} channel */
export const isPower = (channel) => channel.channel === 'power';
/** @param {Channel} channel */
export const isAlarms = (channel) => channel.fields.some((field) => field.name === 'severity');
/** @param {Channel} channel @param {Field} field */
const isPlotted = (channel, field) =>
  channel.delivery === 'Latest' && (field.type === 'Number'
    || (field.type === 'Computed' && (field.unit !== undefined || field.decimals !== undefined)));

/** Up to this many plots use the whole width of a card. */
const FEW_ROWS = 4;

const POWER_WORDS = { on: 'On', off: 'Off', unknown: 'No power data' };
const POWER_SIGNS = { on: '●', off: '○', unknown: '?' };

export class Card {
  /** Identifies what the card was built from; a device with another signature needs a new card. */
  signature;
  node;
  #feed;
  #board;
  /** @type {Plot[]} */
  #plots = [];
  /** @type {Map<string, Part>} */
  #channels = new Map();

  /**
   * @param {Device} device
   * @param {{feed: import('./flutecast.js').Feed, board: import('./plot.js').PlotBoard}} context
   */
  constructor(device, { feed, board }) {
    this.signature = signature(device);
    this.#feed = feed;
    this.#board = board;
    this.node = element('article', 'card');
    this.node.dataset.device = device.device;
    this.node.dataset.power = 'unknown';
    this.node.dataset.stale = 'false';
    this.node.tabIndex = -1;
    const code = element('h3', 'code', device.device);
    code.id = `device-${device.device}`;
    this.node.setAttribute('aria-labelledby', code.id);
    const pills = element('div', 'pills');
    const kind = device.labels.type && device.labels.type !== device.name ? ` · ${device.labels.type}` : '';
    const title = element('div', '', code, element('p', 'name', device.name + kind));
    this.node.append(element('header', 'card-head', title, pills));
    const channels = [...device.channels.values()];
    for (const channel of channels.filter(isPower)) this.#addPower(channel, pills);
    if (!channels.some(isPower)) this.node.dataset.power = 'none';
    const others = channels.filter((channel) => !isPower(channel) && !isAlarms(channel));
    others.sort((a, b) => Number(a.delivery === 'Every') - Number(b.delivery === 'Every'));
    for (const channel of others) this.#addChannel(channel);
    for (const channel of channels.filter(isAlarms)) this.#addAlarms(channel);
    for (const channel of channels) this.update(channel);
  }

  /** Adds a value to the plots. @param {import('./flutecast.js').DataEvent} event */
  sample({ channel, timeMs, values, at }) {
    const plots = this.#channels.get(channel)?.plots;
    if (!plots) return;
    for (const [field, plot] of plots) {
      const value = values[field];
      if (typeof value !== 'number') continue;
      const own = Object.hasOwn(at, field) ? Date.parse(at[field]) : timeMs;
      // A clock that is ahead must not take the places of later points.
      const time = Math.min(own, this.#feed.serverNow());
      plot.history.add(time, value);
      this.#board.seen(time);
    }
  }

  /** Shows the newest values of a channel. @param {Channel} channel */
  update(channel) {
    const part = this.#channels.get(channel.channel);
    if (!part) return;
    if (isPower(channel)) setData(this.node, 'power', powerOf(channel.values));
    for (const writer of part.writers) writer.write(channel.values);
    const stale = String(channel.stale);
    if (part.node && setData(part.node, 'stale', stale)) {
      for (const plot of part.plots.values()) plot.colours = null;
    }
    for (const value of part.values) setData(value, 'stale', stale);
    for (const notes of part.notes) notes.showRaw(channel);
    part.problem.show(channel.problem, this.#feed.serverNow());
    this.updateAge(channel);
    const device = this.#feed.devices.get(this.node.dataset.device ?? '');
    const channels = device ? [...device.channels.values()] : [];
    setData(this.node, 'stale', String(channels.some((other) => other.stale)));
    setData(this.node, 'problems', String(channels.some((other) => other.problem !== null)));
  }

  /** Shows the age of a stale channel, and of a record's older fields. @param {Channel} channel */
  updateAge(channel) {
    const part = this.#channels.get(channel.channel);
    for (const notes of part?.notes ?? []) notes.showAge(channel, this.#feed.serverNow());
    const age = part?.age;
    if (!age) return;
    const ms = this.#feed.age(channel);
    if (channel.stale) setText(age, ms === null ? 'no data yet' : `${span(ms)} old`);
    else setText(age, channel.values === null ? 'no data yet' : '');
  }

  /** Removes the card and its plots. */
  remove() {
    for (const plot of this.#plots) this.#board.remove(plot);
    this.node.remove();
  }

  /**
   * @param {Channel} channel @param {HTMLElement|null} node @param {HTMLElement|null} age
   * @param {ProblemLine} problem
   */
  #part(channel, node, age, problem) {
    /** @type {Part} */
    const part = { node, age, values: [], writers: [], plots: new Map(), notes: [], problem };
    if (node) node.dataset.channel = channel.channel;
    this.#channels.set(channel.channel, part);
    return part;
  }

  /** @param {Channel} channel @param {HTMLElement} pills */
  #addPower(channel, pills) {
    const sign = element('span', 'sign');
    sign.setAttribute('aria-hidden', 'true');
    const word = element('span', 'word');
    const age = element('span', 'age');
    const pill = element('div', 'pill power', sign, word, age);
    pills.append(pill);
    const problem = new ProblemLine(channel.channel, true);
    this.node.append(problem.node);
    const part = this.#part(channel, pill, age, problem);
    word.dataset.field = channel.fields[0]?.name ?? 'on';
    part.values.push(word);
    word.after(...this.#notes(part, word.dataset.field));
    part.writers.push({
      write: (values) => {
        const power = powerOf(values);
        setText(sign, POWER_SIGNS[power]);
        setText(word, POWER_WORDS[power]);
      },
    });
  }

  /** @param {Channel} channel */
  #addChannel(channel) {
    const age = element('span', 'age');
    const states = element('div', 'pills');
    const head = element('header', 'channel-head', element('h4', '', label(channel.channel)), age, states);
    const problem = new ProblemLine(channel.channel, false);
    const section = element('section', 'channel', head, problem.node);
    const part = this.#part(channel, section, age, problem);
    const rows = element('div', 'rows');
    const tiles = element('div', 'tiles');
    let hero = channel.delivery === 'Latest';
    for (const field of channel.fields) {
      if (field.type === 'Enum') states.append(this.#state(part, field));
      else if (isPlotted(channel, field)) {
        if (hero) {
          section.append(this.#plotted(part, channel, field, 'hero'));
          section.classList.add('with-hero');
        } else rows.append(this.#plotted(part, channel, field, 'row'));
        hero = false;
      } else tiles.append(this.#tile(part, field));
    }
    if (rows.childElementCount) section.append(rows);
    rows.classList.toggle('few', rows.childElementCount <= FEW_ROWS);
    rows.style.flexGrow = String(rows.childElementCount);
    if (tiles.childElementCount) section.append(tiles);
    this.node.append(section);
  }

  /** @param {Part} part @param {string} field */
  #notes(part, field) {
    const notes = new ValueNotes(field);
    part.notes.push(notes);
    return notes.nodes;
  }

  /** @param {Part} part @param {Field} field @param {HTMLElement} node */
  #value(part, field, node) {
    node.dataset.field = field.name;
    node.dataset.stale = 'false';
    part.values.push(node);
    part.writers.push({ write: (values) => setNumber(node, valueText(values?.[field.name], field)) });
    return node;
  }

  /** @param {Part} part @param {Field} field */
  #state(part, field) {
    const sign = element('span', 'sign');
    sign.setAttribute('aria-hidden', 'true');
    const word = this.#value(part, field, element('span', 'word'));
    const pill = element('div', 'pill state', sign, word, ...this.#notes(part, field.name));
    pill.title = label(field.name);
    part.writers.push({
      write: (values) => {
        const now = tone(values?.[field.name]);
        setData(pill, 'tone', now);
        setText(sign, SIGNS[now]);
      },
    });
    return pill;
  }

  /** @param {Part} part @param {Channel} channel @param {Field} field @param {'hero'|'row'} kind */
  #plotted(part, channel, field, kind) {
    const canvas = element('canvas', 'plot');
    canvas.setAttribute('aria-hidden', 'true');
    const low = element('span', 'low');
    const high = element('span', 'high');
    const plot = new Plot(canvas, {
      decimals: field.decimals ?? 0,
      area: kind === 'hero',
      silenceMs: channel.staleAfterMs ?? Infinity,
      held: () => {
        const device = this.#feed.devices.get(this.node.dataset.device ?? '');
        const now = device?.channels.get(channel.channel);
        return this.#feed.state === 'live' && !now?.stale && now?.values?.[field.name] !== null;
      },
      onRange: (range) => {
        setText(low, range ? valueText(range.min, { decimals: field.decimals ?? 1 }) : '');
        setText(high, range ? valueText(range.max, { decimals: field.decimals ?? 1 }) : '');
      },
    });
    part.plots.set(field.name, plot);
    this.#plots.push(plot);
    this.#board.add(plot);
    const reading = this.#reading(part, field);
    const range = element('span', 'range', low, ' … ', high);
    range.title = 'smallest and largest value of the time that the plot shows';
    return element('div', kind,
      element('span', 'label', label(field.name)), reading, range, element('div', 'trend', canvas));
  }

  /** @param {Part} part @param {Field} field */
  #tile(part, field) {
    return element('div', 'tile', element('span', 'label', label(field.name)), this.#reading(part, field));
  }

  /** @param {Part} part @param {Field} field */
  #reading(part, field) {
    const value = this.#value(part, field, element('span', 'value'));
    const unit = element('span', 'unit', field.unit ?? '');
    return element('span', 'reading', value, ' ', unit, ...this.#notes(part, field.name));
  }

  /** @param {Channel} channel */
  #addAlarms(channel) {
    const sign = element('span', 'sign');
    sign.setAttribute('aria-hidden', 'true');
    const line = element('section', 'alarm-line', sign);
    line.setAttribute('aria-label', 'Last alarm');
    const problem = new ProblemLine(channel.channel, true);
    const part = this.#part(channel, line, null, problem);
    const none = element('span', 'none', 'No alarm');
    const severity = element('span', 'severity');
    const text = element('span', 'text');
    const time = element('time', 'when');
    line.append(none, severity, text, time);
    for (const field of channel.fields) {
      const node = field.name === 'severity' ? severity : field.name === 'text' ? text : null;
      if (node) this.#value(part, field, node).after(...this.#notes(part, field.name));
    }
    this.node.append(line, problem.node);
    part.writers.push({
      write: (values) => {
        const now = values ? tone(values.severity) : 'good';
        setData(line, 'tone', values ? now : 'none');
        setText(sign, now === 'good' ? '✓' : SIGNS[now]);
        none.hidden = values !== null;
        severity.hidden = text.hidden = time.hidden = values === null;
        line.title = values ? valueText(values.text ?? values.code) : '';
        if (channel.timeMs === null) return;
        setText(time, lateText(timeText(channel.timeMs, this.#feed.serverNow()), channel.late));
      },
    });
  }
}

/** Identifies what a card is built from. @param {Device} device */
export function signature(device) {
  const { name, labels, channels } = device;
  const parts = [...channels.values()].map(({ channel, delivery, staleAfterMs, fields }) =>
    [channel, delivery, staleAfterMs, fields]);
  return JSON.stringify([name, labels, parts]);
}
