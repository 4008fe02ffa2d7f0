/**
 * What a card shows of a channel's messages that aren't understood: a line with the reason and what would be
 * right, which opens to the place in the message, and the raw text beside a value that can't be read.
 * @module problem
 */
import { element, setData, setText } from './dom.js';
import { label, problemText, SIGNS, span, timeText } from './format.js';

/** Records whose parts come in turn would flicker if younger ages were shown. */
const SHORTEST_AGE_MS = 5_000;

/** The line of a channel's problem; hidden while there is none. */
export class ProblemLine {
  node;
  #reason = element('strong', 'reason');
  #count = element('span', 'count');
  #message = element('span', 'message');
  #details = element('dl', 'details');
  #sign = element('span', 'sign');
  #channel;

  /**
   * @param {string} channel
   * @param {boolean} named whether the line names its channel, as it stands under no heading of it
   */
  constructor(channel, named) {
    this.#channel = named ? `${label(channel)}: ` : '';
    this.#sign.setAttribute('aria-hidden', 'true');
    const head = element('summary', '', this.#sign, ' ', this.#reason, this.#count, ': ', this.#message);
    this.node = element('details', 'problem', head, this.#details);
    this.node.dataset.problem = channel;
    this.node.hidden = true;
  }

  /** @param {import('./flutecast.js').Problem|null} problem @param {number} now */
  show(problem, now) {
    this.node.hidden = problem === null;
    if (problem === null) return;
    const { reason, field, place, found, message, count, since, last } = problem;
    // A hint costs no value.
    const tone = reason === 'FieldNotFound' ? 'info' : 'warn';
    setData(this.node, 'tone', tone);
    setData(this.node, 'reason', reason);
    setText(this.#sign, SIGNS[tone]);
    setText(this.#reason, this.#channel + problemText(reason, field));
    setText(this.#count, count > 1 ? ` (${count} ×)` : '');
    setText(this.#message, message);
    const rows = [['Place', place], ['Found', found], ['Since', at(since, now)], ['Last', at(last, now)]];
    const known = rows.filter(([, text]) => text !== null && text !== '');
    this.node.title = [place, found].filter(Boolean).join(': ');
    // Written only where it differs: an open line must not lose a selection.
    if (setData(this.#details, 'shown', JSON.stringify(known))) {
      this.#details.replaceChildren(...known.flatMap(([name, text]) =>
        [element('dt', '', name ?? ''), element('dd', '', text ?? '')]));
    }
  }
}

/** @param {string} time @param {number} now */
function at(time, now) {
  const ms = Date.parse(time);
  return Number.isNaN(ms) ? null : timeText(ms, now);
}

/** What stands beside a value: the raw text if it can't be read, and its age if it is older than its record. */
export class ValueNotes {
  #raw = element('span', 'raw');
  #age = element('span', 'field-age');
  #field;

  /** @param {string} field */
  constructor(field) {
    this.#field = field;
    this.#raw.dataset.raw = field;
    this.#raw.setAttribute('role', 'note');
    this.#raw.hidden = true;
    this.#age.dataset.age = field;
  }

  get nodes() {
    return [this.#raw, this.#age];
  }

  /** @param {import('./flutecast.js').Channel} channel */
  showRaw(channel) {
    const raw = Object.hasOwn(channel.bad, this.#field) ? String(channel.bad[this.#field]) : null;
    this.#raw.hidden = raw === null;
    if (raw !== null && setText(this.#raw, raw)) {
      this.#raw.title = `“${raw}” came, which can't be read`;
      this.#raw.setAttribute('aria-label', `can't be read: ${raw}`);
    }
  }

  /** @param {import('./flutecast.js').Channel} channel @param {number} now */
  showAge({ at: times }, now) {
    const ms = Object.hasOwn(times, this.#field) ? now - Date.parse(times[this.#field]) : NaN;
    setText(this.#age, ms >= SHORTEST_AGE_MS ? span(ms) : '');
  }
}
