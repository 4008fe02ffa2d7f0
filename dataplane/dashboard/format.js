/**
 * Formats values, names, ages and states as text. Pure functions.
 * @module format
 */

/**
 * Formats a value without its unit.
 * @param {import('./flutecast.js').Value|undefined} value
 * @param {{decimals?: number}} [field]
 */
export function valueText(value, field = {}) {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value !== 'number') return value;
  if (field.decimals !== undefined) return value.toFixed(field.decimals).replace(/^-(0(\.0*)?)$/, '$1');
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)));
}

/**
 * Splits a number into groups of three digits, which a page can space without changing the text: `1234567`
 * becomes `1`, `234`, `567`. Numbers of up to four digits are not split.
 * @param {string} text
 * @returns {string[]} the groups; joined, they are the text
 */
export function digitGroups(text) {
  const match = /^(-?)(\d{5,})(\.\d+)?$/.exec(text);
  if (!match) return [text];
  const groups = match[2].split(/(?=(?:\d{3})+$)/);
  groups[0] = match[1] + groups[0];
  groups[groups.length - 1] += match[3] ?? '';
  return groups;
}

/**
 * Formats a field's name: `steamPreheater1` becomes `Steam preheater 1`.
 * @param {string} name
 */
export function label(name) {
  const words = name
    .replace(/([a-z])([A-Z])/g, '$1 $2')
    .replace(/([A-Za-z])([0-9])/g, '$1 $2')
    .replace(/[_.-]+/g, ' ')
    .trim()
    .split(/\s+/)
    .map((word) => (/^[A-Z]{2,}$/.test(word) ? word : word.toLowerCase()));
  const text = words.join(' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * Formats a span of time in one unit: `12 s`, `3 min`, `5 h`, `2 d`.
 * @param {number} ms
 */
export function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

const TIME = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const DAY = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

/**
 * Formats a time of day in the page's time zone, with the day if it isn't today.
 * @param {number} ms since 1970
 * @param {number} now since 1970
 */
export function timeText(ms, now) {
  const time = TIME.format(ms);
  return DAY.format(ms) === DAY.format(now) ? time : `${DAY.format(ms)} ${time}`;
}

/**
 * Marks the time of an event that came late.
 * @param {string} time
 * @param {boolean} late
 */
export function lateText(time, late) {
  return late ? `${time} · late` : time;
}

/** @typedef {'good'|'idle'|'warn'|'bad'|'info'} Tone */

/** The tones of known states and severities; others are `info`. @type {Record<string, Tone>} */
const TONES = {
  on: 'good', running: 'good', run: 'good', ok: 'good', ready: 'good', producing: 'good', cleared: 'good',
  normal: 'good',
  off: 'idle', stopped: 'idle', stop: 'idle', idle: 'idle', standby: 'idle',
  warning: 'warn', threading: 'warn', setup: 'warn', starting: 'warn', stopping: 'warn', maintenance: 'warn',
  minor: 'warn',
  critical: 'bad', alarm: 'bad', error: 'bad', fault: 'bad', failed: 'bad', jam: 'bad', major: 'bad',
  emergency: 'bad',
};

/** @param {unknown} word @returns {Tone} */
export function tone(word) {
  return (typeof word === 'string' && TONES[word.toLowerCase()]) || 'info';
}

/** A sign for each tone, so that colour is never the only indication. @type {Record<Tone, string>} */
export const SIGNS = { good: '●', idle: '■', warn: '▲', bad: '◆', info: '○' };

/**
 * Returns whether the values of a power channel mean on or off.
 * @param {Record<string, import('./flutecast.js').Value>|null|undefined} values
 * @returns {'on'|'off'|'unknown'}
 */
export function powerOf(values) {
  if (!values) return 'unknown';
  const named = ['on', 'power', 'state'].find((name) => name in values) ?? Object.keys(values)[0];
  const value = values[named];
  if (value === true || value === 1) return 'on';
  if (value === false || value === 0) return 'off';
  const word = String(value).toLowerCase();
  return word === 'on' || word === 'off' ? word : 'unknown';
}

/** @type {Record<string, string>} */
const REASONS = {
  Unreachable: 'The server can’t be reached',
  Closed: 'The connection was lost',
  Silent: 'The server went silent',
  Timeout: 'The server doesn’t answer',
  NotAStream: 'Something else answered in the server’s place',
  Token: 'No access token could be had',
  Http: 'The server answered with an error',
  Starting: 'The server is starting',
  Full: 'The server is full',
  Draining: 'The server is being replaced',
  Rebalancing: 'Another server takes over',
  BrokerAway: 'The server has lost its broker',
  SlowClient: 'This page was too slow for the server',
  AccessRevoked: 'The access was taken back',
  TenantRemoved: 'The tenant was removed',
  UnknownDevice: 'No such device yet; it appears here when it does',
  NoSuchChannel: 'The device has no such channel',
  Retention: 'the stream no longer holds them',
  Epoch: 'the stream was made anew',
};

/**
 * Formats a reason of the protocol or of the client.
 * @param {string|null|undefined} reason
 * @param {string|null} [otherwise]
 */
export function reasonText(reason, otherwise) {
  return REASONS[reason ?? ''] ?? otherwise ?? reason ?? 'Unknown reason';
}

/** @type {Record<string, string>} */
const GAPS = {
  Retention: 'the stream no longer holds them',
  Epoch: 'the stream was made anew',
  SlowClient: 'this page was too slow',
  BrokerAway: 'the broker was away',
};

/**
 * Formats a `gap` event.
 * @param {{device?: string, channel?: string, reason: string, lost?: number|null}} gap
 */
export function gapText({ device, channel, reason, lost }) {
  const count = `${lost} ${lost === 1 ? 'event is' : 'events are'} missing`;
  const what = lost === null || lost === undefined ? 'events may be missing' : count;
  const where = [device, channel].filter(Boolean).join(' ');
  return `${where ? `${where}: ` : ''}${what}, because ${GAPS[reason] ?? reason}`;
}

/** @type {Record<string, string>} */
const PROBLEMS = {
  Malformed: 'Not valid JSON',
  BadTimestamp: 'Time not readable',
  OutOfOrder: 'Out of order',
  TooOld: 'Too old',
  TooFarAhead: 'Too far ahead',
  NoFields: 'No known field',
  BadField: 'Value not readable',
  ClockAhead: 'Clock ahead',
  FieldNotFound: 'Field not found',
  NotRead: 'Not looked up',
};

/**
 * Formats the reason of a problem, with the field that it is about.
 * @param {string} reason
 * @param {string|null} field
 */
export function problemText(reason, field) {
  const words = PROBLEMS[reason] ?? reason;
  return field ? `${words}: ${label(field)}` : words;
}
