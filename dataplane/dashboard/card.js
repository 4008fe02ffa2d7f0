/**
 * The card of a device, built from the channels that `hello` describes. Nothing here depends on a kind of
 * machine.
 * @module card
 */
import { element, setData, setNumber, setText } from './dom.js';
import { label, powerOf, SIGNS, span, timeText, tone, valueText } from './format.js';
import { Plot } from './plot.js';

/** @typedef {import('./flutecast.js').Device} Device */
/** @typedef {import('./flutecast.js').Channel} Channel */
/** @typedef {import('./flutecast.js').Field} Field */
/** @typedef {{write: (values: Record<string, any>|null) => void}} Writer */
/**
 * The part of a card that shows a channel.
 * @typedef {{
 *   node: HTMLElement|null, age: HTMLElement|null, values: HTMLElement[], writers: Writer[],
 *   plots: Map<string, Plot>
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
  sample({ channel, timeMs, values }) {
    const plots = this.#channels.get(channel)?.plots;
    if (!plots) return;
    for (const [field, plot] of plots) {
      const value = values[field];
      if (typeof value !== 'number') continue;
      plot.history.add(timeMs, value);
      this.#board.seen(timeMs);
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
    this.updateAge(channel);
    const device = this.#feed.devices.get(this.node.dataset.device ?? '');
    const any = device ? [...device.channels.values()].some((other) => other.stale) : false;
    setData(this.node, 'stale', String(any));
  }

  /** Shows the age of a stale channel. @param {Channel} channel */
  updateAge(channel) {
    const age = this.#channels.get(channel.channel)?.age;
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

  /** @param {Channel} channel @param {HTMLElement|null} node @param {HTMLElement|null} age */
  #part(channel, node, age) {
    /** @type {Part} */
    const part = { node, age, values: [], writers: [], plots: new Map() };
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
    const part = this.#part(channel, pill, age);
    word.dataset.field = channel.fields[0]?.name ?? 'on';
    part.values.push(word);
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
    const section = element('section', 'channel', head);
    const part = this.#part(channel, section, age);
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
    const pill = element('div', 'pill state', sign, word);
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
        return this.#feed.state === 'live' && !device?.channels.get(channel.channel)?.stale;
      },
      onRange: (range) => {
        setText(low, range ? valueText(range.min, { decimals: field.decimals ?? 1 }) : '');
        setText(high, range ? valueText(range.max, { decimals: field.decimals ?? 1 }) : '');
      },
    });
    part.plots.set(field.name, plot);
    this.#plots.push(plot);
    this.#board.add(plot);
    const value = this.#value(part, field, element('span', 'value'));
    const range = element('span', 'range', low, ' … ', high);
    range.title = 'smallest and largest value of the time that the plot shows';
    return element('div', kind,
      element('span', 'label', label(field.name)),
      element('span', 'reading', value, ' ', element('span', 'unit', field.unit ?? '')),
      range, element('div', 'trend', canvas));
  }

  /** @param {Part} part @param {Field} field */
  #tile(part, field) {
    const value = this.#value(part, field, element('span', 'value'));
    return element('div', 'tile', element('span', 'label', label(field.name)),
      element('span', 'reading', value, ' ', element('span', 'unit', field.unit ?? '')));
  }

  /** @param {Channel} channel */
  #addAlarms(channel) {
    const sign = element('span', 'sign');
    sign.setAttribute('aria-hidden', 'true');
    const line = element('section', 'alarm-line', sign);
    line.setAttribute('aria-label', 'Last alarm');
    const part = this.#part(channel, line, null);
    const none = element('span', 'none', 'No alarm');
    const severity = element('span', 'severity');
    const text = element('span', 'text');
    const time = element('time', 'when');
    for (const field of channel.fields) {
      if (field.name === 'severity') this.#value(part, field, severity);
      if (field.name === 'text') this.#value(part, field, text);
    }
    line.append(none, severity, text, time);
    this.node.append(line);
    part.writers.push({
      write: (values) => {
        const now = values ? tone(values.severity) : 'good';
        setData(line, 'tone', values ? now : 'none');
        setText(sign, now === 'good' ? '✓' : SIGNS[now]);
        none.hidden = values !== null;
        severity.hidden = text.hidden = time.hidden = values === null;
        line.title = values ? valueText(values.text ?? values.code) : '';
        if (channel.timeMs !== null) setText(time, timeText(channel.timeMs, this.#feed.serverNow()));
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
