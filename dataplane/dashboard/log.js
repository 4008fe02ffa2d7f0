/**
 * The lists below the devices: alarms, and notices about the connection and lost events.
 * @module log
 */
import { element, setChildren, setData, setText } from './dom.js';
import { lateText, SIGNS, timeText, tone, valueText } from './format.js';

/** The most alarms that are kept. */
const MOST_ALARMS = 100;
/** The most notices that are kept. */
const MOST_NOTICES = 50;

/**
 * @typedef {{
 *   key: string, device: string, code: string, severity: string, text: string, timeMs: number,
 *   clearedMs: number|null, late: boolean
 * }} Alarm
 */

const RANK = { bad: 0, warn: 1, info: 2, idle: 3, good: 4 };

/** The alarms of all devices: active ones first by severity, then cleared ones. */
export class AlarmList {
  /** @type {Map<string, Alarm>} */
  #alarms = new Map();
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();

  /**
   * Adds an alarm event. A later event with the same device and code replaces an earlier one. An alarm that
   * was cleared before this page knew it is ignored.
   * @param {import('./flutecast.js').DataEvent} event
   * @returns {boolean} whether the list changed
   */
  add({ device, timeMs, values, bad, late }) {
    // Of what can't be read the raw text is shown, so that two such alarms aren't taken for one.
    const shown = (/** @type {string} */ name) =>
      (Object.hasOwn(bad, name) ? `“${bad[name]}”` : valueText(values[name]));
    const code = values.code === undefined ? '' : shown('code');
    const severity = shown('severity');
    const key = `${device} ${code || shown('text')}`;
    const before = this.#alarms.get(key);
    const text = values.text || 'text' in bad ? shown('text') : before?.text ?? '';
    if (tone(severity) === 'good') {
      if (!before || before.clearedMs !== null) return false;
      this.#alarms.set(key, { ...before, clearedMs: timeMs, late });
    } else this.#alarms.set(key, { key, device, code, severity, text, timeMs, clearedMs: null, late });
    while (this.#alarms.size > MOST_ALARMS) {
      const last = this.sorted().pop();
      if (last) this.#alarms.delete(last.key);
    }
    return true;
  }

  /** @returns {Alarm[]} */
  sorted() {
    return [...this.#alarms.values()].sort((a, b) =>
      Number(a.clearedMs !== null) - Number(b.clearedMs !== null)
      || (a.clearedMs === null ? RANK[tone(a.severity)] - RANK[tone(b.severity)] : 0)
      || (b.clearedMs ?? b.timeMs) - (a.clearedMs ?? a.timeMs));
  }

  /** The number of alarms that are not cleared. */
  get active() {
    return [...this.#alarms.values()].filter((alarm) => alarm.clearedMs === null).length;
  }

  /**
   * @param {HTMLElement} list
   * @param {number} now
   */
  render(list, now) {
    const alarms = this.sorted();
    for (const key of [...this.#rows.keys()]) if (!this.#alarms.has(key)) this.#rows.delete(key);
    setChildren(list, alarms.map((alarm) => {
      let row = this.#rows.get(alarm.key);
      if (!row) {
        const sign = element('span', 'sign');
        sign.setAttribute('aria-hidden', 'true');
        const device = element('span', 'device', alarm.device);
        row = element('li', 'alarm', sign, element('span', 'severity'), device, element('span', 'text'),
          element('span', 'number'), element('time', 'when'));
        this.#rows.set(alarm.key, row);
      }
      const cleared = alarm.clearedMs !== null;
      const now_ = cleared ? 'good' : tone(alarm.severity);
      const [sign, severity, , text, number, time] = [...row.children];
      setData(row, 'tone', now_);
      setText(sign, cleared ? '✓' : SIGNS[now_]);
      setText(severity, cleared ? 'cleared' : alarm.severity);
      setText(text, alarm.text || `Alarm ${alarm.code}`);
      setText(number, alarm.code ? `#${alarm.code}` : '');
      setText(time, lateText(timeText(alarm.clearedMs ?? alarm.timeMs, now), alarm.late));
      return row;
    }));
  }
}

/** Notices about the connection, newest first. */
export class NoticeList {
  /** @type {{node: HTMLElement, text: string}[]} */
  #notices = [];

  /**
   * @param {HTMLElement} list
   * @param {import('./format.js').Tone} kind
   * @param {string} text
   * @param {number} now
   */
  add(list, kind, text, now) {
    if (this.#notices[0]?.text === text) {
      const time = this.#notices[0].node.querySelector('time');
      if (time) setText(time, timeText(now, now));
      return;
    }
    const sign = element('span', 'sign', SIGNS[kind]);
    sign.setAttribute('aria-hidden', 'true');
    const time = element('time', 'when', timeText(now, now));
    const node = element('li', 'notice', sign, element('span', 'text', text), time);
    node.dataset.tone = kind;
    this.#notices.unshift({ node, text });
    list.prepend(node);
    for (const { node: old } of this.#notices.splice(MOST_NOTICES)) old.remove();
  }
}
