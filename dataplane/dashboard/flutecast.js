/**
 * The Flutecast client: follows the live values of factory devices over Server-Sent Events, for any web page.
 *
 *     import { connect } from './flutecast.js';
 *     const feed = connect({ tenant: 'demo', devices: ['CORR-01'] });
 *     feed.addEventListener('data', ({ detail }) => console.log(detail.device, detail.channel, detail.values));
 *
 * It keeps the newest values of each device and channel, knows which of them are stale, reconnects by itself and resumes
 * where it was. It reads only the public protocol (docs/protocol.md) and needs nothing but `fetch`. docs/client.md is its guide.
 *
 * Events, each a CustomEvent whose `detail` is:
 *   state    the new {@link Status}
 *   hello    the server's `hello`; `devices` is up to date
 *   data     {@link DataEvent}: new values; `devices` holds them already
 *   stale, fresh, gap, refused, devices, bye, ping    the protocol's own object
 *   change   {device, channel?}: something about this device in `devices` is different (also it came or went)
 *
 * @module flutecast
 */

/**
 * @typedef {object} Options
 * @property {string} tenant the tenant's name
 * @property {string[]} [devices] device codes; `*` for every device that the caller may read
 * @property {string} [selector] devices by label, such as `line=l1`; this or `devices` is needed
 * @property {string[]} [channels] only these channels; left out: all
 * @property {string} [interval] at most one value of a `Latest` channel in this time, such as `500ms`
 * @property {string|URL} [url] where the data plane is; left out: where the page comes from
 * @property {string|(() => string|null|undefined|Promise<string|null|undefined>)} [token] the access token, or a function that gets it before each connection
 * @property {typeof fetch} [fetch] instead of the global `fetch`
 * @property {AbortSignal} [signal] closes the feed when it aborts
 * @property {string} [lastEventId] where to resume
 * @property {number} [maxBackoffMs] the longest random wait before a new attempt; 30 s
 * @property {number} [connectTimeoutMs] how long a connection may take up to `hello`; 15 s
 * @property {number} [refusedRetryMs] how long to wait after a refusal (4xx) before asking again; 60 s, 0 for never
 * @property {Timers} [timers] the clock, for tests
 */

/**
 * @typedef {object} Timers
 * @property {(callback: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 * @property {() => number} now milliseconds since 1970
 * @property {() => number} random 0 to 1
 */

/**
 * How the feed is. `connecting`: the first attempt. `live`: connected. `waiting`: connected, but the server can't serve now.
 * `reconnecting`: not connected; the next attempt is under way or at `retryAt`. `refused`: the server wants something else from
 * us (a token, another question). `closed`: by `close()`.
 * @typedef {object} Status
 * @property {'connecting'|'live'|'waiting'|'reconnecting'|'refused'|'closed'} state
 * @property {string|null} reason why it isn't live: `Unreachable`, `Closed`, `Silent`, `Timeout`, `Token`, `NotAStream`, `Http`, a protocol's reason, or an error's code
 * @property {string|null} message the reason for people
 * @property {number|null} httpStatus the status code, where one is the reason
 * @property {number|null} retryAt when the next attempt starts, in milliseconds of this machine's clock
 * @property {number} attempt how many connections failed in a row
 */

/** @typedef {{name: string, type: 'Number'|'String'|'Bool'|'Enum'|'Computed', unit?: string, decimals?: number}} Field */
/** @typedef {number|string|boolean|null} Value */

/**
 * @typedef {object} Channel
 * @property {string} channel its name
 * @property {'Latest'|'Every'} delivery
 * @property {number|null} staleAfterMs after which silence it is stale; null: never
 * @property {Field[]} fields
 * @property {Record<string, Value>|null} values the newest message's values; null before the first
 * @property {string|null} time when they happened (RFC 3339)
 * @property {number|null} timeMs the same in milliseconds since 1970, on the server's clock
 * @property {boolean} stale whether the channel has been silent for too long
 */

/**
 * @typedef {object} Device
 * @property {string} device the device code
 * @property {string} name
 * @property {Record<string, string>} labels
 * @property {Map<string, Channel>} channels
 */

/**
 * @typedef {object} DataEvent
 * @property {string} device
 * @property {string} channel
 * @property {string} time
 * @property {number} timeMs
 * @property {Record<string, Value>} values
 * @property {string|null} id
 */

/** What is waited for at most by a timer; a longer wait would overflow it. */
const LONGEST_WAIT_MS = 3_600_000;
/** The first random wait is at most this, and doubles with each failure. */
const FIRST_BACKOFF_MS = 1_000;
/** A connection that lived this long was a good one: failures are counted anew. */
const STEADY_MS = 10_000;
/** The shortest wait that a `bye` can ask for, so that a broken server isn't hammered. */
const SHORTEST_BYE_MS = 100;
/** The protocol's default `pingMs`, for a `hello` without one. */
const DEFAULT_PING_MS = 15_000;
/** A longer address goes as POST with a body instead. */
const LONGEST_ADDRESS = 2_000;
/** One event may take this much text (a `hello` of thousands of devices takes a few MiB). */
const LARGEST_EVENT = 32 * 1024 * 1024;
/** Differences between our clock and the server's below this are network time, not skew. */
const SKEW_TOLERANCE_MS = 500;

/**
 * Reads Server-Sent Events from bytes, as the HTML standard says, wherever the chunks are cut.
 */
export class SseParser {
  /** The last event id, as the next request sends it; it moves on at the end of a block. */
  lastEventId;
  /** @type {number|null} What the server's last `retry:` line said, in milliseconds. */
  retry = null;

  #decoder = new TextDecoder(); // Keeps characters that are cut in two, and takes a BOM away.
  #text = '';
  #scanned = 0;
  #afterCr = false;
  #onEvent;
  #type = '';
  #size = 0;
  /** @type {string[]} */
  #data = [];
  /** @type {string|null} */
  #id = null;

  /**
   * @param {(event: {type: string, data: string, id: string|null}) => void} onEvent called for each event; `id` is null when its block had none
   * @param {string} [lastEventId]
   */
  constructor(onEvent, lastEventId = '') {
    this.#onEvent = onEvent;
    this.lastEventId = lastEventId;
  }

  /**
   * @param {Uint8Array} bytes the next chunk
   * @throws {RangeError} when one event is larger than 32 Mi characters
   */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === '') return;
    // A CR ends its line at once; a LF that comes first in the next chunk belongs to it.
    if (this.#afterCr && text[0] === '\n') text = text.slice(1);
    this.#afterCr = text === '' ? false : text.endsWith('\r');
    this.#text += text;
    const ends = /\r\n|\r|\n/g;
    ends.lastIndex = this.#scanned;
    let start = 0;
    for (let end; (end = ends.exec(this.#text)); start = ends.lastIndex) {
      this.#line(this.#text.slice(start, end.index));
    }
    this.#text = this.#text.slice(start);
    this.#scanned = this.#text.length;
    if (this.#text.length + this.#size > LARGEST_EVENT) throw new RangeError('an event is too large');
  }

  /** @param {string} line */
  #line(line) {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return; // A comment.
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value[0] === ' ') value = value.slice(1);
    if (field === 'data') {
      this.#data.push(value);
      this.#size += value.length + 1;
    } else if (field === 'event') this.#type = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }

  #dispatch() {
    const event = { type: this.#type || 'message', data: this.#data.join('\n'), id: this.#id };
    const empty = this.#data.length === 0;
    if (this.#id !== null) this.lastEventId = this.#id;
    this.#type = '';
    this.#data = [];
    this.#size = 0;
    this.#id = null;
    if (!empty) this.#onEvent(event);
  }
}

/**
 * Takes an id apart.
 * @param {string|null} id
 * @returns {{epoch: string, sequence: number}|null} null when it isn't `<epoch>-<sequence>`
 */
export function parseId(id) {
  const match = /^([0-9a-f]+)-([0-9]+)$/.exec(id ?? '');
  return match ? { epoch: match[1], sequence: Number(match[2]) } : null;
}

/**
 * How long to wait before the next attempt: the server's `retry`, and on top a random time up to a bound that doubles with each
 * failure (full jitter), so that the screens of a plant don't come back all at once.
 * @param {number} attempt failures in a row, from 1
 * @param {{retryMs?: number|null, maxBackoffMs: number, random: () => number}} settings
 * @returns {number} milliseconds
 */
export function backoff(attempt, { retryMs, maxBackoffMs, random }) {
  const bound = Math.min(maxBackoffMs, FIRST_BACKOFF_MS * 2 ** Math.min(attempt - 1, 30));
  return Math.min(LONGEST_WAIT_MS, (retryMs ?? 0) + random() * bound);
}

/**
 * Starts to follow devices.
 * @param {Options} options
 * @returns {Feed}
 * @throws {TypeError} when the options can't be right
 */
export function connect(options) {
  return new Feed(options);
}

/** How one connection ended. @typedef {{reason: string, message?: string|null, httpStatus?: number, waitMs?: number, refused?: boolean}} End */
/** One attempt, from the request to its end. @typedef {{controller: AbortController, heardAt: number, limitMs: number, timer: any, helloAt: number|null, parser: SseParser|null, over: boolean, gone: Set<string>}} Run */
/** What tells which event of a channel is the newest. @typedef {{id: ReturnType<typeof parseId>, numbered: boolean}} Mark */

/** A running subscription; made by {@link connect}. */
export class Feed extends EventTarget {
  /** The devices that this feed follows, by code. @type {Map<string, Device>} */
  devices = new Map();
  /** Devices that aren't served now, and why. @type {Map<string, {device: string, reason: string, message?: string}>} */
  refusals = new Map();
  /** @type {Status} */
  status = { state: 'connecting', reason: null, message: null, httpStatus: null, retryAt: null, attempt: 0 };
  /** The last `hello`. @type {any} */
  hello = null;
  /** Counts since the start. `dropped`: events that were not newer than what is known; `invalid`: ones that could not be read. */
  stats = { connections: 0, events: 0, bytes: 0, dropped: 0, invalid: 0, gaps: 0 };
  /** When the last event came, in milliseconds of this machine's clock. @type {number|null} */
  lastEventAt = null;

  #options;
  /** @type {Timers} */
  #timers;
  /** @type {Run|null} */
  #run = null;
  /** @type {any} */
  #retryTimer = null;
  /** @type {any} */
  #freshnessTimer = null;
  #byServer = false;
  #lastEventId = '';
  /** @type {number|null} */
  #retryMs = null;
  #skewMs = 0;
  /** @type {WeakMap<Channel, Mark>} */
  #marks = new WeakMap();
  /** @type {(() => void)[]} */
  #undo = [];

  /** @param {Options} options */
  constructor(options) {
    super();
    if (!options?.tenant) throw new TypeError('connect: tenant is needed');
    if (!options.devices?.length && !options.selector) throw new TypeError('connect: devices or selector is needed');
    this.#options = { maxBackoffMs: 30_000, connectTimeoutMs: 15_000, refusedRetryMs: 60_000, ...options };
    this.#timers = options.timers ?? {
      setTimeout: (callback, ms) => setTimeout(callback, ms),
      clearTimeout: (timer) => clearTimeout(timer),
      now: () => Date.now(),
      random: () => Math.random(),
    };
    this.#lastEventId = options.lastEventId ?? '';
    const { signal } = options;
    if (signal?.aborted) {
      this.status = { ...this.status, state: 'closed' };
      return;
    }
    if (signal) this.#listen(signal, 'abort', () => this.close());
    if (typeof window !== 'undefined') {
      this.#listen(window, 'online', () => this.#nudge());
      this.#listen(window, 'pageshow', () => this.#nudge());
      this.#listen(document, 'visibilitychange', () => document.visibilityState === 'visible' && this.#nudge());
    }
    void this.#open();
  }

  /** `status.state`. */
  get state() {
    return this.status.state;
  }

  /** The last event id: where a later feed would resume. */
  get lastEventId() {
    return this.#lastEventId;
  }

  /** The server's clock now, as far as it is known, in milliseconds since 1970. */
  serverNow() {
    return this.#timers.now() + this.#skewMs;
  }

  /**
   * How old a channel's values are.
   * @param {Channel|undefined} channel
   * @returns {number|null} milliseconds; null without values
   */
  age(channel) {
    return channel?.timeMs == null ? null : Math.max(0, this.serverNow() - channel.timeMs);
  }

  /**
   * Connects anew at once, whatever the state (but not after `close`).
   * @param {{token?: Options['token']}} [changes] a new token to use from now on
   */
  reconnect(changes = {}) {
    if (this.state === 'closed') return;
    if ('token' in changes) this.#options.token = changes.token;
    this.#drop();
    this.status = { ...this.status, state: 'reconnecting', reason: null, message: null, httpStatus: null };
    void this.#open();
  }

  /** Ends the feed for good: no timer, listener or connection of it stays. */
  close() {
    if (this.state === 'closed') return;
    this.#drop();
    this.#timers.clearTimeout(this.#freshnessTimer);
    for (const undo of this.#undo) undo();
    this.#undo = [];
    this.#become({ state: 'closed' });
  }

  /** @param {EventTarget} target @param {string} type @param {() => void} listener */
  #listen(target, type, listener) {
    target.addEventListener(type, listener);
    this.#undo.push(() => target.removeEventListener(type, listener));
  }

  /** @param {string} type @param {unknown} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** @param {Partial<Status>} status what isn't given is reset, but for `attempt` */
  #become(status) {
    const before = this.status;
    this.status = { state: before.state, reason: null, message: null, httpStatus: null, retryAt: null, attempt: before.attempt, ...status };
    if (this.state !== 'live') this.#watchFreshness();
    this.#emit('state', this.status);
  }

  /** Ends the current attempt or wait, without a word. */
  #drop() {
    this.#timers.clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    const run = this.#run;
    this.#run = null;
    if (!run) return;
    run.over = true;
    this.#timers.clearTimeout(run.timer);
    run.controller.abort();
  }

  /** The page is seen again, or the network is back: don't sit out a long wait, and don't trust an old connection. */
  #nudge() {
    const run = this.#run;
    if (run) {
      if (this.#timers.now() - run.heardAt > run.limitMs) this.#lost(run, { reason: 'Silent' });
    } else if (this.state === 'reconnecting' && !this.#byServer) {
      const soon = this.#timers.random() * FIRST_BACKOFF_MS;
      if ((this.status.retryAt ?? 0) > this.#timers.now() + soon) this.#retryIn(soon, this.status);
    }
  }

  async #open() {
    const { connectTimeoutMs } = this.#options;
    /** @type {Run} */
    const run = {
      controller: new AbortController(), heardAt: this.#timers.now(), limitMs: connectTimeoutMs,
      timer: null, helloAt: null, parser: null, over: false, gone: new Set(),
    };
    this.#run = run;
    this.#retryTimer = null;
    this.#watch(run);
    if (this.state === 'reconnecting' || this.state === 'refused') this.#become({ ...this.status, retryAt: null });
    else if (this.state !== 'connecting') this.#become({ state: 'reconnecting' });
    let end;
    try {
      end = await this.#read(run);
    } catch (error) {
      end = { reason: run.helloAt === null ? 'Unreachable' : 'Closed', message: error instanceof Error ? error.message : String(error) };
    }
    this.#lost(run, end);
  }

  /** @param {Run} run @returns {Promise<End>} */
  async #read(run) {
    let request;
    try {
      request = await this.#request(run.controller.signal);
    } catch (error) {
      return { reason: 'Token', message: error instanceof Error ? error.message : String(error) };
    }
    if (run.over) return { reason: 'Closed' };
    const response = await (this.#options.fetch ?? fetch)(request.url, request.init);
    run.heardAt = this.#timers.now();
    this.#setClock(Date.parse(response.headers.get('date') ?? ''), 1_000);
    const type = response.headers.get('content-type') ?? '';
    if (response.status !== 200) return this.#httpError(response);
    if (!type.startsWith('text/event-stream') || !response.body) {
      void response.body?.cancel().catch(() => {});
      return { reason: 'NotAStream', message: `the answer is ${type || 'without a content type'}, not an event stream` };
    }
    this.stats.connections += 1;
    /** @type {End|null} */
    let bye = null;
    const parser = new SseParser((event) => {
      if (!run.over && !bye) bye = this.#receive(run, event);
    }, this.#lastEventId);
    const reader = response.body.getReader();
    while (!run.over) {
      const { done, value } = await reader.read();
      if (done || run.over) break;
      run.heardAt = this.#timers.now();
      this.stats.bytes += value.length;
      const waiting = this.state === 'waiting';
      parser.push(value);
      if (run.over) break;
      if (!bye && parser.lastEventId !== this.#lastEventId) this.#removeGone(run);
      // A new id says that all before it was delivered, also where there was nothing to deliver.
      if (waiting && parser.lastEventId !== this.#lastEventId) this.#serving();
      this.#lastEventId = parser.lastEventId;
      this.#retryMs = parser.retry ?? this.#retryMs;
      if (bye) return bye;
    }
    return { reason: 'Closed', message: 'the server ended the connection' };
  }

  /** @param {AbortSignal} signal */
  async #request(signal) {
    const { tenant, devices, selector, channels, interval, url, token } = this.#options;
    const base = url ?? new URL('.', document.baseURI).href;
    const address = new URL(`${String(base).replace(/\/$/, '')}/v1/${encodeURIComponent(tenant)}/events`, globalThis.document?.baseURI);
    const lastEventId = this.#lastEventId || undefined;
    const query = new URLSearchParams();
    for (const device of devices ?? []) query.append('device', device);
    for (const channel of channels ?? []) query.append('channel', channel);
    for (const [name, value] of Object.entries({ selector, interval, lastEventId })) if (value) query.append(name, value);
    /** @type {Record<string, string>} */
    const headers = { accept: 'text/event-stream' };
    const bearer = typeof token === 'function' ? await token() : token;
    if (bearer) headers.authorization = `Bearer ${bearer}`;
    /** @type {RequestInit} */
    const init = { headers, signal, cache: 'no-store' };
    const search = query.toString();
    if (address.href.length + search.length < LONGEST_ADDRESS) address.search = search;
    else {
      headers['content-type'] = 'application/json';
      init.method = 'POST';
      init.body = JSON.stringify({ devices, selector, channels, interval, lastEventId });
    }
    return { url: address.href, init };
  }

  /** @param {Response} response @returns {Promise<End>} */
  async #httpError(response) {
    const { status } = response;
    const text = await response.text().catch(() => '');
    let error;
    try {
      error = JSON.parse(text).error;
    } catch {
      // An error page of something between us and the server.
    }
    // These three 4xx say "later", the others "differently".
    const refused = status >= 400 && status < 500 && ![408, 425, 429].includes(status);
    const after = Number(response.headers.get('retry-after') ?? NaN) * 1_000;
    return {
      refused, httpStatus: status, reason: error?.code ?? 'Http', message: error?.message ?? `the server answered ${status}`,
      waitMs: after > 0 ? after + this.#timers.random() * FIRST_BACKOFF_MS : undefined,
    };
  }

  /**
   * A connection ended, or was given up.
   * @param {Run} run @param {End} end
   */
  #lost(run, end) {
    if (run.over || this.#run !== run) return;
    const steady = run.helloAt !== null && this.#timers.now() - run.helloAt >= STEADY_MS;
    this.#drop();
    const status = {
      attempt: (steady ? 0 : this.status.attempt) + 1,
      reason: end.reason, message: end.message ?? null, httpStatus: end.httpStatus ?? null,
    };
    const { maxBackoffMs, refusedRetryMs } = this.#options;
    const { random } = this.#timers;
    this.#byServer = end.waitMs !== undefined;
    if (end.refused) {
      const wait = refusedRetryMs > 0 ? refusedRetryMs * (0.5 + random()) : null;
      this.#retryIn(wait, { ...status, state: 'refused' });
    } else {
      const wait = end.waitMs ?? backoff(status.attempt, { retryMs: this.#retryMs, maxBackoffMs, random });
      this.#retryIn(wait, { ...status, state: 'reconnecting' });
    }
  }

  /** @param {number|null} ms @param {Partial<Status>} status */
  #retryIn(ms, status) {
    this.#timers.clearTimeout(this.#retryTimer);
    const wait = ms === null ? null : Math.min(ms, LONGEST_WAIT_MS);
    this.#retryTimer = wait === null ? null : this.#timers.setTimeout(() => void this.#open(), wait);
    this.#become({ ...status, retryAt: wait === null ? null : this.#timers.now() + wait });
  }

  /** Gives a connection up on which nothing was heard for its limit. @param {Run} run */
  #watch(run) {
    this.#timers.clearTimeout(run.timer);
    const rest = run.heardAt + run.limitMs - this.#timers.now();
    if (rest <= 0) this.#lost(run, { reason: run.helloAt === null ? 'Timeout' : 'Silent', message: 'nothing was heard from the server' });
    else run.timer = this.#timers.setTimeout(() => this.#watch(run), rest);
  }

  /** While no server tells us, we say ourselves what has become stale: a frozen value must never look live. */
  #watchFreshness() {
    this.#timers.clearTimeout(this.#freshnessTimer);
    if (this.state === 'live' || this.state === 'closed') return;
    this.#freshnessTimer = this.#timers.setTimeout(() => this.#watchFreshness(), 1_000);
    for (const { device, channels } of this.devices.values()) {
      for (const channel of channels.values()) {
        const age = this.age(channel);
        if (channel.stale || age === null || channel.staleAfterMs === null || age <= channel.staleAfterMs) continue;
        channel.stale = true;
        this.#emit('stale', { device, channel: channel.channel, since: channel.time, staleAfterMs: channel.staleAfterMs });
        this.#emit('change', { device, channel: channel.channel });
      }
    }
  }

  /** @param {number} time what the server's clock said just now @param {number} resolution */
  #setClock(time, resolution) {
    if (Number.isNaN(time)) return;
    const skew = time + resolution / 2 - this.#timers.now();
    this.#skewMs = Math.abs(skew) <= SKEW_TOLERANCE_MS + resolution / 2 ? 0 : skew;
  }

  /**
   * @param {Run} run @param {{type: string, data: string, id: string|null}} event
   * @returns {End|null} when the server ends the connection
   */
  #receive(run, { type, data, id }) {
    this.stats.events += 1;
    this.lastEventAt = this.#timers.now();
    let body;
    try {
      body = JSON.parse(data);
    } catch {
      body = null;
    }
    if (body === null || typeof body !== 'object') {
      this.stats.invalid += 1;
      return null;
    }
    const waits = type === 'bye' || (type === 'refused' && !body.device) || (type === 'ping' && this.state === 'waiting');
    if (type === 'devices') for (const { device } of body.added ?? []) run.gone.delete(device);
    if (!waits) this.#removeGone(run);
    if (type === 'message') this.#onData(body, id);
    else if (type === 'hello') return this.#onHello(run, body);
    else if (type === 'stale' || type === 'fresh') this.#onFreshness(body, type);
    else if (type === 'devices') {
      for (const device of body.added ?? []) this.#put(device);
      for (const code of body.removed ?? []) this.#remove(code);
      this.#serving();
      this.#emit('devices', body);
    } else if (type === 'gap') {
      this.stats.gaps += 1;
      this.#serving();
      this.#emit('gap', body);
    } else if (type === 'refused') {
      if (body.device) this.refusals.set(body.device, body);
      else this.#become({ state: 'waiting', reason: body.reason, message: body.message ?? null });
      this.#emit('refused', body);
    } else if (type === 'ping') {
      this.#setClock(Date.parse(body.time), 0);
      this.#emit('ping', body);
    } else if (type === 'bye') {
      this.#emit('bye', body);
      const waitMs = Number.isFinite(body.retryMs) ? Math.max(SHORTEST_BYE_MS, body.retryMs) : undefined;
      return { reason: body.reason, message: body.message ?? null, waitMs };
    } // Events that we don't know are for later versions of this file.
    return null;
  }

  /** @param {Run} run @param {any} hello @returns {End|null} */
  #onHello(run, hello) {
    if (hello.protocol > 1) {
      return { refused: true, reason: 'UnknownProtocol', message: `the server speaks protocol ${hello.protocol}; reload the page` };
    }
    this.hello = hello;
    run.helloAt = this.#timers.now();
    run.limitMs = 2 * (hello.pingMs > 0 ? hello.pingMs : DEFAULT_PING_MS) + 1_000;
    this.#watch(run);
    this.refusals.clear();
    const codes = new Set();
    for (const device of hello.devices ?? []) {
      codes.add(device.device);
      this.#put(device);
    }
    // A server that turns us away describes no device, and one that isn't ready doesn't either. Those that we know are kept until it is sure that they are
    // gone: who resumes isn't sent again what it had.
    run.gone = new Set([...this.devices.keys()].filter((code) => !codes.has(code)));
    if (codes.size > 0) this.#removeGone(run);
    this.#become({ state: 'live' });
    this.#emit('hello', hello);
    return null;
  }

  /** @param {any} told a device as `hello` and `devices` describe it; what is known of its values stays */
  #put(told) {
    const known = this.devices.get(told.device);
    /** @type {Device} */
    const device = known ?? { device: told.device, name: told.name, labels: {}, channels: new Map() };
    device.name = told.name ?? told.device;
    device.labels = told.labels ?? {};
    const before = device.channels;
    device.channels = new Map();
    for (const { channel: name, delivery, staleAfterMs = null, fields = [] } of told.channels ?? []) {
      /** @type {Channel} */
      const channel = before.get(name) ?? { channel: name, delivery, staleAfterMs, fields, values: null, time: null, timeMs: null, stale: false };
      Object.assign(channel, { delivery, staleAfterMs, fields });
      if (staleAfterMs === null) channel.stale = false;
      device.channels.set(name, channel);
    }
    this.refusals.delete(told.device);
    this.devices.set(told.device, device);
    this.#emit('change', { device: told.device });
  }

  /** The server serves us and doesn't have these devices (any more). @param {Run} run */
  #removeGone(run) {
    for (const code of run.gone) this.#remove(code);
    run.gone.clear();
  }

  /** @param {string} code */
  #remove(code) {
    if (this.devices.delete(code)) this.#emit('change', { device: code });
  }

  /** The server serves (again). */
  #serving() {
    if (this.state === 'waiting') this.#become({ state: 'live' });
  }

  /** @param {any} body @param {'stale'|'fresh'} type */
  #onFreshness(body, type) {
    const channel = this.devices.get(body.device)?.channels.get(body.channel);
    if (type === 'fresh') this.#serving();
    if (channel) channel.stale = type === 'stale';
    this.#emit(type, body);
    if (channel) this.#emit('change', { device: body.device, channel: body.channel });
  }

  /** @param {any} body @param {string|null} id */
  #onData(body, id) {
    const { device, channel: name, time, values } = body;
    const channel = this.devices.get(device)?.channels.get(name);
    const timeMs = Date.parse(time);
    const parsed = parseId(id);
    const last = parseId(this.#lastEventId);
    // Ids rise. One that is lower says that the broker lost its newest messages and gives their numbers to others now.
    if (parsed && last && parsed.epoch === last.epoch && parsed.sequence < last.sequence) this.#marks = new WeakMap();
    if (!channel || Number.isNaN(timeMs) || values === null || typeof values !== 'object') {
      this.stats.invalid += 1;
      return;
    }
    this.#serving();
    if (!this.#isNewer(channel, parsed, timeMs, values)) {
      this.stats.dropped += 1;
      return;
    }
    this.#marks.set(channel, { id: parsed ?? this.#marks.get(channel)?.id ?? null, numbered: parsed !== null });
    Object.assign(channel, { values, time, timeMs, stale: false });
    this.#emit('data', { device, channel: name, time, timeMs, values, id });
    this.#emit('change', { device, channel: name });
  }

  /**
   * Whether an event is newer than what we have of its channel. Within an epoch the sequence decides. Events of a snapshot or a
   * replay have no id: there the time decides, and at the same time the values, as the event may be the one that we have.
   * @param {Channel} channel @param {ReturnType<typeof parseId>} id @param {number} timeMs @param {Record<string, Value>} values
   */
  #isNewer(channel, id, timeMs, values) {
    if (channel.timeMs === null) return true;
    const mark = this.#marks.get(channel);
    if (id && mark?.id?.epoch === id.epoch && id.sequence <= mark.id.sequence) return false;
    if (id && mark?.numbered) return true;
    if (timeMs !== channel.timeMs) return timeMs > channel.timeMs;
    return JSON.stringify(values) !== JSON.stringify(channel.values);
  }
}
