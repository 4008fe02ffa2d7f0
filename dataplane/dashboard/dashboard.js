/**
 * The dashboard: shows the devices of a tenant live. It reads only the public protocol, through flutecast.js.
 *
 * Address: `?tenant=demo&device=CORR-01&device=…&selector=line%3Dl1&channel=telemetry&interval=500ms`, all
 * optional; without a device and a selector it shows all devices. `#token=…` is the access token for displays
 * without a keyboard; it is removed from the address at once.
 *
 * @module dashboard
 */
import { connect } from './flutecast.js';
import { Card, isAlarms, isPower, signature } from './card.js';
import { element, setChildren, setData, setText } from './dom.js';
import { gapText, powerOf, reasonText, SIGNS, span, timeText, tone } from './format.js';
import { AlarmList, NoticeList } from './log.js';
import { PlotBoard } from './plot.js';

/** @param {string} id @returns {HTMLElement} */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {string} name */
const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.getAttribute('content') ?? '';

const query = new URLSearchParams(location.search);
const tenant = query.get('tenant') || meta('flutecast-tenant');
const ORDER = meta('flutecast-order').split(',');
const base = new URL('.', location.href);
// Several factories may be at paths of one gateway.
const TOKEN_KEY = `flutecast.token${base.pathname.replace(/\/$/, '')}.${tenant}`;

const fromAddress = new URLSearchParams(location.hash.slice(1)).get('token');
if (fromAddress) {
  sessionStorage.setItem(TOKEN_KEY, fromAddress);
  history.replaceState(null, '', location.pathname + location.search);
}
document.title = `${tenant} · Flutecast`;
setText(byId('tenant'), tenant);

const feed = connect({
  url: base,
  tenant,
  devices: query.getAll('device').length > 0 || query.get('selector') ? query.getAll('device') : ['*'],
  selector: query.get('selector') ?? undefined,
  channels: query.getAll('channel'),
  interval: query.get('interval') ?? undefined,
  problems: true,
  token: () => sessionStorage.getItem(TOKEN_KEY),
});

const board = new PlotBoard(() => feed.serverNow());
const alarms = new AlarmList();
const notices = new NoticeList();
/** @type {Map<string, Card>} */
const cards = new Map();
/** @type {Map<string, {node: HTMLElement, summary: HTMLElement, grid: HTMLElement}>} */
const lines = new Map();

/** The changes that the next frame has to show. */
const dirty = {
  structure: false,
  alarms: false,
  /** @type {Map<string, Set<string>>} */
  channels: new Map(),
  frame: 0,
};

/** Requests a frame unless one is already requested. */
function schedule() {
  if (dirty.frame === 0) dirty.frame = requestAnimationFrame(flush);
}

function flush() {
  dirty.frame = 0;
  if (dirty.structure) arrange();
  dirty.structure = false;
  for (const [code, names] of dirty.channels) {
    const channels = feed.devices.get(code)?.channels;
    const card = cards.get(code);
    for (const name of names) {
      const channel = channels?.get(name);
      if (channel) card?.update(channel);
    }
  }
  dirty.channels.clear();
  if (dirty.alarms) showAlarms();
  dirty.alarms = false;
}

/** @param {string} text @param {import('./format.js').Tone} kind */
const notice = (text, kind) => notices.add(byId('notice-list'), kind, text, Date.now());

// ---- Events of the feed

feed.addEventListener('change', (event) => {
  const { device, channel } = /** @type {CustomEvent} */ (event).detail;
  if (channel === undefined) dirty.structure = true;
  else {
    const names = dirty.channels.get(device);
    if (names) names.add(channel);
    else dirty.channels.set(device, new Set([channel]));
  }
  schedule();
});

feed.addEventListener('data', (event) => {
  const { detail } = /** @type {CustomEvent<import('./flutecast.js').DataEvent>} */ (event);
  const channel = feed.devices.get(detail.device)?.channels.get(detail.channel);
  if (!channel) return;
  // The card may not exist yet if the device came with the same chunk.
  if (!cards.has(detail.device)) arrange();
  cards.get(detail.device)?.sample(detail);
  if (isAlarms(channel) && alarms.add(detail)) dirty.alarms = true;
});

feed.addEventListener('hello', () => {
  dirty.structure = true;
  schedule();
});
feed.addEventListener('gap', (event) => notice(gapText(/** @type {CustomEvent} */ (event).detail), 'warn'));
feed.addEventListener('refused', (event) => {
  const { device, reason, message } = /** @type {CustomEvent} */ (event).detail;
  notice(`${device ? `${device}: ` : ''}${reasonText(reason, message)}`, 'warn');
  dirty.structure = true;
  schedule();
});
feed.addEventListener('devices', (event) => {
  const { added = [], removed = [] } = /** @type {CustomEvent} */ (event).detail;
  const codes = added.map((/** @type {any} */ device) => device.device);
  if (added.length > 0) notice(`New: ${codes.join(', ')}`, 'info');
  if (removed.length > 0) notice(`Gone: ${removed.join(', ')}`, 'info');
});

let wasLive = false;
/** @type {number|null} */
let awaySince = null;
feed.addEventListener('state', () => {
  const { state, reason, message } = feed.status;
  if (state === 'live') {
    if (awaySince !== null) notice(`Live again after ${span(Date.now() - awaySince)}`, 'good');
    awaySince = null;
    wasLive = true;
  } else if (wasLive && awaySince === null) {
    awaySince = Date.now();
    notice(reasonText(reason, message), 'bad');
  }
  showConnection();
});

// ---- Connection

const SIGN = { connecting: '◌', live: '●', waiting: '◐', reconnecting: '↻', refused: '✕', closed: '○' };
const WORD = {
  connecting: 'Connecting', live: 'Live', waiting: 'Waiting', reconnecting: 'Reconnecting',
  refused: 'Refused', closed: 'Closed',
};

function showConnection() {
  const { state, reason, message, retryAt, httpStatus } = feed.status;
  for (const node of [document.body, byId('bar')]) setData(node, 'connection', state);
  const connection = byId('connection');
  setText(/** @type {Element} */ (connection.querySelector('.sign')), SIGN[state]);
  setText(byId('connection-state'), WORD[state]);
  // The count-down is not in the live region: a screen reader would announce every second.
  const seconds = retryAt === null ? null : Math.max(0, Math.ceil((retryAt - Date.now()) / 1_000));
  const why = state === 'live' || state === 'connecting' ? '' : reasonText(reason, message);
  const detail = state === 'reconnecting' ? (seconds === null ? 'now …' : `in ${seconds} s`) : why;
  setText(byId('connection-detail'), detail);
  connection.title = message ?? why;
  setText(byId('server'), feed.hello?.server ?? '–');

  const refused = state === 'refused';
  byId('refusal').hidden = !refused;
  const needsToken = refused && (httpStatus === 401 || httpStatus === 403);
  const form = byId('token-form');
  const asked = needsToken && form.hidden;
  form.hidden = !needsToken;
  if (asked && document.activeElement === document.body) byId('token').focus();
  if (refused) {
    setText(byId('refusal-title'), needsToken ? `Access to “${tenant}”` : 'The server refuses this page');
    setText(byId('refusal-text'), message ?? reasonText(reason));
  }
  showEmpty();
}

function showEmpty() {
  const { state, reason, message } = feed.status;
  const empty = byId('empty');
  empty.hidden = cards.size > 0 || state === 'refused';
  const texts = {
    connecting: 'Connecting …',
    live: 'No device matches what this page asks for. Devices appear here as soon as they exist.',
  };
  setText(empty, texts[/** @type {'connecting'|'live'} */ (state)] ?? `${reasonText(reason, message)}.`);
}

byId('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ (byId('token'));
  sessionStorage.setItem(TOKEN_KEY, input.value.trim());
  input.value = '';
  feed.reconnect();
});
byId('again').addEventListener('click', () => feed.reconnect());

// ---- Devices

/** @param {import('./flutecast.js').Device} device */
function place(device) {
  const position = Number(device.labels.position ?? NaN);
  const type = ORDER.indexOf(device.labels.type ?? '');
  return [Number.isNaN(position) ? Infinity : position, type < 0 ? ORDER.length : type];
}

/** @param {import('./flutecast.js').Device} a @param {import('./flutecast.js').Device} b */
function alongTheLine(a, b) {
  const [p, q] = [place(a), place(b)];
  if (p[0] !== q[0]) return p[0] < q[0] ? -1 : 1;
  return p[1] - q[1] || a.device.localeCompare(b.device, 'en', { numeric: true });
}

/** Updates the cards to the feed's devices, grouped by line. */
function arrange() {
  /** @type {Map<string, import('./flutecast.js').Device[]>} */
  const groups = new Map();
  for (const device of feed.devices.values()) {
    const line = device.labels.line ?? '';
    groups.set(line, [...(groups.get(line) ?? []), device]);
  }
  for (const [code, card] of cards) {
    const device = feed.devices.get(code);
    if (device && card.signature === signature(device)) continue;
    card.remove();
    cards.delete(code);
  }
  const names = [...groups.keys()].sort((a, b) =>
    Number(a === '') - Number(b === '') || a.localeCompare(b, 'en', { numeric: true }));
  const sections = names.map((name) => {
    const line = lines.get(name) ?? newLine(name, names.length);
    lines.set(name, line);
    const devices = (groups.get(name) ?? []).sort(alongTheLine);
    setChildren(line.grid, devices.map((device) => {
      const card = cards.get(device.device) ?? new Card(device, { feed, board });
      cards.set(device.device, card);
      return card.node;
    }));
    line.grid.style.setProperty('--cards', String(devices.length));
    return line.node;
  });
  for (const name of [...lines.keys()]) if (!groups.has(name)) lines.delete(name);
  const refused = [...feed.refusals.values()].filter(({ device }) => !feed.devices.has(device)).map(ghost);
  const ghosts = element('div', 'grid ghosts', ...refused);
  if (refused.length > 0) sections.push(element('section', 'line', ghosts));
  setChildren(byId('lines'), sections);
  showEmpty();
  showSummaries();
}

/** @param {string} name @param {number} count */
function newLine(name, count) {
  const title = element('h2', '', name === '' ? (count > 1 ? 'Other devices' : 'Devices') : `Line ${name}`);
  const summary = element('p', 'summary');
  const grid = element('div', 'grid');
  const head = element('header', 'line-head', title, summary, element('p', 'plot-span'));
  const node = element('section', 'line', head, grid);
  node.dataset.line = name;
  return { node, summary, grid };
}

/** @param {{device: string, reason: string, message?: string}} refusal */
function ghost({ device, reason, message }) {
  const name = element('p', 'name', reasonText(reason, message));
  const card = element('article', 'card ghost', element('h3', 'code', device), name);
  card.dataset.device = device;
  card.dataset.refused = reason;
  return card;
}

function showSummaries() {
  const shown = `Plots: last ${span(board.windowMs())}`;
  for (const node of document.querySelectorAll('.plot-span')) setText(node, shown);
  for (const { grid, summary } of lines.values()) {
    const counts = { devices: 0, powered: 0, on: 0, stale: 0, problems: 0 };
    for (const node of grid.children) {
      const device = feed.devices.get(/** @type {HTMLElement} */ (node).dataset.device ?? '');
      if (!device) continue;
      const channels = [...device.channels.values()];
      const power = channels.find(isPower);
      counts.devices += 1;
      counts.powered += power ? 1 : 0;
      counts.on += power && powerOf(power.values) === 'on' ? 1 : 0;
      counts.stale += channels.some((channel) => channel.stale) ? 1 : 0;
      counts.problems += channels.some((channel) => channel.problem !== null) ? 1 : 0;
    }
    const parts = [counts.devices === 1 ? '1 device' : `${counts.devices} devices`];
    if (counts.powered > 0) parts.push(`${counts.on} of ${counts.powered} on`);
    if (counts.stale > 0) parts.push(`${counts.stale} with stale values`);
    if (counts.problems > 0) parts.push(`${counts.problems} with problems`);
    setText(summary, parts.join(' · '));
  }
}

function showAlarms() {
  alarms.render(byId('alarm-list'), feed.serverNow());
  const chip = byId('alarm-count');
  const { active } = alarms;
  setData(chip, 'active', String(active));
  setData(chip, 'tone', active > 0 ? tone(alarms.sorted()[0].severity) : 'good');
  setText(chip.children[0], active > 0 ? SIGNS[tone(alarms.sorted()[0].severity)] : '✓');
  const some = active === 1 ? '1 active alarm' : `${active} active alarms`;
  setText(chip.children[1], active === 0 ? 'No active alarm' : some);
}

// ---- Periodic updates

/** The count of events at each of the last seconds. */
const counts = [0];

setInterval(() => {
  counts.push(feed.stats.events);
  if (counts.length > 6) counts.shift();
  const rate = (counts[counts.length - 1] - counts[0]) / (counts.length - 1);
  setText(byId('rate'), rate < 10 ? rate.toFixed(1) : rate.toFixed(0));
  if (feed.lastEventAt !== null) setText(byId('updated'), timeText(feed.lastEventAt, Date.now()));
  if (feed.state !== 'live') showConnection();
  if (document.hidden) return;
  for (const device of feed.devices.values()) {
    const card = cards.get(device.device);
    for (const channel of device.channels.values()) {
      if (channel.stale || Object.keys(channel.at).length > 0) card?.updateAge(channel);
    }
  }
  showSummaries();
}, 1_000);

showConnection();
showAlarms();
