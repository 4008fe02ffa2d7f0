/**
 * The Flutecast client for web pages: receives live values of factory devices over Server-Sent Events.
 *
 *     import { connect } from './flutecast.js';
 *     const feed = connect({ tenant: 'demo', devices: ['CORR-01'] });
 *     feed.addEventListener('data', ({ detail }) => console.log(detail.device, detail.values));
 *
 * It keeps the newest values of each device and channel, marks stale ones, reconnects by itself and resumes
 * where it was. It uses only the public protocol (docs/protocol.md) and `fetch`. Its guide is docs/client.md.
 *
 * Events, each a CustomEvent whose `detail` is:
 *   state    the new {@link Status}
 *   hello    the server's `hello`; `devices` is up to date
 *   data     {@link DataEvent}: new values, which `devices` already contains
 *   problem  {@link ProblemEvent}, with the option `problems`: why messages of a channel aren't shown
 *   stale, fresh, gap, refused, devices, bye, ping    the object of the protocol
 *   change   {device, channel?}: the device changed in `devices`, was added or removed
 *
 * @module flutecast
 */

/**
 * @typedef {object} Options
 * @property {string} tenant the tenant's name
 * @property {string[]} [devices] device codes; `*` for every device that the caller may read
 * @property {string} [selector] devices by label, such as `line=l1`; either this or `devices` is required
 * @property {string[]} [channels] only these channels; default: all
 * @property {string} [interval] at most one value of a `Latest` channel in this time, such as `500ms`
 * @property {boolean} [problems] whether the server also says why messages aren't shown; see {@link Problem}
 * @property {string|URL} [url] the base address of the data plane; default: that of the page
 * @property {string|(() => string|null|undefined|Promise<string|null|undefined>)} [token] the access token,
 *   or a function that returns it, called before each connection
 * @property {typeof fetch} [fetch] used instead of the global `fetch`
 * @property {AbortSignal} [signal] closes the feed when aborted
 * @property {string} [lastEventId] where to resume
 * @property {number} [maxBackoffMs] the longest random wait before a new attempt; default: 30 s
 * @property {number} [connectTimeoutMs] how long a connection may take up to `hello`; default: 15 s
 * @property {number} [refusedRetryMs] the wait before a new attempt after a 4xx; default: 60 s, never if 0
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
 * The state of a feed. `connecting`: the first attempt. `live`: connected. `waiting`: connected, but the
 * server can't serve now. `reconnecting`: not connected; the next attempt is running or starts at `retryAt`.
 * `refused`: the server refuses the request (token or parameters). `closed`: by `close()`.
 * @typedef {object} Status
 * @property {'connecting'|'live'|'waiting'|'reconnecting'|'refused'|'closed'} state
 * @property {string|null} reason why it isn't live: `Unreachable`, `Closed`, `Silent`, `Timeout`, `Token`,
 *   `NotAStream`, `Http`, a reason of the protocol, or the code of an error
 * @property {string|null} message the reason as text
 * @property {number|null} httpStatus the status code, if it is the reason
 * @property {number|null} retryAt when the next attempt starts, in milliseconds of the local clock
 * @property {number} attempt the number of failed connections in a row
 */

/**
 * @typedef {{
 *   name: string, type: 'Number'|'String'|'Bool'|'Enum'|'Computed', unit?: string, decimals?: number
 * }} Field
 */
/** @typedef {number|string|boolean|null} Value */

/**
 * Why messages of a channel, or parts of them, aren't shown.
 * @typedef {object} Problem
 * @property {string} reason such as `Malformed`, `TooOld`, `BadField` or `ClockAhead`; see the protocol
 * @property {string|null} field the field, if it is about one
 * @property {string|null} place where in the message: a JSON pointer, or `byte 17`
 * @property {string|null} found what stands there, at most 64 characters
 * @property {string} message what is wrong, and what would be right
 * @property {number} count how often the server's pod has seen it
 * @property {string} since the time of the first one (RFC 3339)
 * @property {string} last the time of the newest one (RFC 3339)
 */

/**
 * @typedef {object} ProblemEvent
 * @property {string} device
 * @property {string} channel
 * @property {Problem|null} problem null: it has ended
 */

/**
 * @typedef {object} Channel
 * @property {string} channel the name
 * @property {'Latest'|'Every'} delivery
 * @property {number|null} staleAfterMs the time without a message after which values are stale; null: never
 * @property {Field[]} fields
 * @property {Record<string, Value>|null} values of the newest message; null before the first
 * @property {string|null} time of the values (RFC 3339)
 * @property {number|null} timeMs the same in milliseconds since 1970, by the server's clock
 * @property {number|null} seq the message's sequence in the stream; null from servers of an earlier version
 * @property {Record<string, string>} bad the raw text of each field that can't be read, whose value is null
 * @property {Record<string, string>} at the time of each field that is older than `time`, of records
 * @property {boolean} late whether the message of an `Every` channel was stored long after its time
 * @property {boolean} stale
 * @property {Problem|null} problem with the option `problems`: the current problem
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
 * @property {number|null} seq as in {@link Channel}, like `bad`, `at` and `late`
 * @property {Record<string, string>} bad
 * @property {Record<string, string>} at
 * @property {boolean} late
 * @property {string|null} id
 */

/** The longest wait of a timer; much longer ones overflow. */
const LONGEST_WAIT_MS = 3_600_000;
/** The bound of the first random wait; it doubles with each failure. */
const FIRST_BACKOFF_MS = 1_000;
/** A connection that lasted this long resets the count of failures. */
const STEADY_MS = 10_000;
/** The shortest wait accepted from a `bye`, to protect a broken server. */
const SHORTEST_BYE_MS = 100;
/** The protocol's default `pingMs`, for a `hello` without one. */
const DEFAULT_PING_MS = 15_000;
/** A request with a longer address is sent as POST with a body. */
const LONGEST_ADDRESS = 2_000;
/** The longest event in characters; a `hello` of thousands of devices has a few MiB. */
const LARGEST_EVENT = 32 * 1024 * 1024;
/**
 * Another pod may be this much behind the one before. An older value from it doesn't replace one that came
 * within this time; later it does, as the broker may have lost its newest messages.
 */
const BEHIND_MS = 5_000;
/** The value of `bad` and `at` if there is none. @type {Record<string, string>} */
const NONE = Object.freeze({});
/** Smaller differences from the server's clock count as network latency, not as skew. */
const SKEW_TOLERANCE_MS = 500;

/** Parses Server-Sent Events from chunks of bytes, as specified by the HTML standard. */
export class SseParser {
  /** The last event id, to be sent with the next request; it changes at the end of a block. */
  lastEventId;
  /** @type {number|null} The server's last `retry:` in milliseconds. */
  retry = null;

  #decoder = new TextDecoder(); // Joins characters split between chunks, and removes a BOM.
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
   * @param {(event: {type: string, data: string, id: string|null}) => void} onEvent called for each event;
   *   `id` is null if its block had none
   * @param {string} [lastEventId]
   */
  constructor(onEvent, lastEventId = '') {
    this.#onEvent = onEvent;
    this.lastEventId = lastEventId;
  }

  /**
   * @param {Uint8Array} bytes the next chunk
   * @throws {RangeError} if one event has more than 32 Mi characters
   */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === '') return;
    // A CR ends its line at once; an LF at the beginning of the next chunk belongs to it.
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
 * Returns the wait before the next attempt: the server's `retry`, plus a random time up to a bound that
 * doubles with each failure (full jitter), so that the screens of a plant don't come back at the same time.
 * @param {number} attempt failures in a row, from 1
 * @param {{retryMs?: number|null, maxBackoffMs: number, random: () => number}} settings
 * @returns {number} milliseconds
 */
export function backoff(attempt, { retryMs, maxBackoffMs, random }) {
  const bound = Math.min(maxBackoffMs, FIRST_BACKOFF_MS * 2 ** Math.min(attempt - 1, 30));
  return Math.min(LONGEST_WAIT_MS, (retryMs ?? 0) + random() * bound);
}

/**
 * Subscribes to devices.
 * @param {Options} options
 * @returns {Feed}
 * @throws {TypeError} if a required option is missing
 */
export function connect(options) {
  return new Feed(options);
}

/**
 * Why a connection ended.
 * @typedef {{
 *   reason: string, message?: string|null, httpStatus?: number, waitMs?: number, refused?: boolean
 * }} CloseReason
 */
/**
 * One attempt, from the request to its end.
 * @typedef {{
 *   controller: AbortController, heardAt: number, limitMs: number, timer: any, helloAt: number|null,
 *   parser: SseParser|null, over: boolean, gone: Set<string>, settled: boolean, stale: Set<Channel>,
 *   problems: Set<Channel>
 * }} Attempt
 * `settled`: everything up to an id was delivered. `stale`, `problems`: the channels of which it said so.
 */
/**
 * The newest event of a channel. `hello`: the number of the `hello` that it followed; null if the next event
 * counts whatever its sequence. `epoch`: that of the `hello`. `at`: when it came, by the local clock.
 * @typedef {{seq: number|null, hello: number|null, epoch: string|null, at: number}} Mark
 */

/** A subscription, created by {@link connect}. */
export class Feed extends EventTarget {
  /** The devices of this feed by code. @type {Map<string, Device>} */
  devices = new Map();
  /** Refused devices. @type {Map<string, {device: string, reason: string, message?: string}>} */
  refusals = new Map();
  /** @type {Status} */
  status = { state: 'connecting', reason: null, message: null, httpStatus: null, retryAt: null, attempt: 0 };
  /** The last `hello`. @type {any} */
  hello = null;
  /** Counts since the start. `dropped`: events not newer than the known ones; `invalid`: malformed events. */
  stats = { connections: 0, events: 0, bytes: 0, dropped: 0, invalid: 0, gaps: 0 };
  /** The time of the last event in milliseconds of the local clock. @type {number|null} */
  lastEventAt = null;

  #options;
  /** @type {Timers} */
  #timers;
  /** @type {Attempt|null} */
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
  /** The number of `hello` events so far. */
  #hellos = 0;
  /** @type {WeakMap<Channel, Mark>} */
  #marks = new WeakMap();
  /** @type {(() => void)[]} */
  #undo = [];

  /** @param {Options} options */
  constructor(options) {
    super();
    if (!options?.tenant) throw new TypeError('connect: tenant is needed');
    if (!options.devices?.length && !options.selector) {
      throw new TypeError('connect: devices or selector is needed');
    }
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
      const visible = () => document.visibilityState === 'visible';
      this.#listen(document, 'visibilitychange', () => visible() && this.#nudge());
    }
    void this.#open();
  }

  /** `status.state`. */
  get state() {
    return this.status.state;
  }

  /** The last event id, with which a later feed can resume. */
  get lastEventId() {
    return this.#lastEventId;
  }

  /** Returns the server's time in milliseconds since 1970, as far as it is known. */
  serverNow() {
    return this.#timers.now() + this.#skewMs;
  }

  /**
   * Returns the age of a channel's values.
   * @param {Channel|undefined} channel
   * @returns {number|null} milliseconds; null without values
   */
  age(channel) {
    if (channel?.timeMs == null) return null;
    // A server of an earlier version passes on the times of a clock that is ahead.
    const heardAt = this.#marks.get(channel)?.at ?? Infinity;
    return Math.max(0, this.serverNow() - channel.timeMs, this.#timers.now() - heardAt);
  }

  /**
   * Reconnects at once in any state except `closed`.
   * @param {{token?: Options['token']}} [changes] a new token
   */
  reconnect(changes = {}) {
    if (this.state === 'closed') return;
    if ('token' in changes) this.#options.token = changes.token;
    this.#drop();
    this.status = { ...this.status, state: 'reconnecting', reason: null, message: null, httpStatus: null };
    void this.#open();
  }

  /** Ends the feed with all of its timers, listeners and connections. */
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

  /** @param {Partial<Status>} status missing properties are reset, except `state` and `attempt` */
  #become(status) {
    const before = this.status;
    const { state, attempt } = before;
    this.status = { state, reason: null, message: null, httpStatus: null, retryAt: null, attempt, ...status };
    if (this.state !== 'live') this.#watchFreshness();
    this.#emit('state', this.status);
  }

  /** Ends the current attempt or wait without an event. */
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

  /** For a page visible again, or a network that is back: shortens a wait, and checks the connection. */
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
    /** @type {Attempt} */
    const run = {
      controller: new AbortController(), heardAt: this.#timers.now(), limitMs: connectTimeoutMs,
      timer: null, helloAt: null, parser: null, over: false, gone: new Set(), settled: false,
      stale: new Set(), problems: new Set(),
    };
    this.#run = run;
    this.#retryTimer = null;
    this.#watch(run);
    const retrying = this.state === 'reconnecting' || this.state === 'refused';
    if (retrying) this.#become({ ...this.status, retryAt: null });
    else if (this.state !== 'connecting') this.#become({ state: 'reconnecting' });
    let end;
    try {
      end = await this.#read(run);
    } catch (error) {
      const reason = run.helloAt === null ? 'Unreachable' : 'Closed';
      end = { reason, message: error instanceof Error ? error.message : String(error) };
    }
    this.#lost(run, end);
  }

  /** @param {Attempt} run @returns {Promise<CloseReason>} */
  async #read(run) {
    const { problems } = this.#options;
    const end = await this.#stream(run, problems);
    // A server of the version before refuses the parameter; the next attempt may reach a newer one.
    const unknown = problems && end.httpStatus === 400 && end.message?.startsWith('problems:');
    return unknown && !run.over ? this.#stream(run, undefined) : end;
  }

  /** @param {Attempt} run @param {boolean} [problems] @returns {Promise<CloseReason>} */
  async #stream(run, problems) {
    let request;
    try {
      request = await this.#request(run.controller.signal, problems);
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
      const message = `the answer is ${type || 'without a content type'}, not an event stream`;
      return { reason: 'NotAStream', message };
    }
    this.stats.connections += 1;
    /** @type {CloseReason|null} */
    let bye = null;
    const parser = new SseParser((event) => {
      if (event.id !== null) this.#settle(run);
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
      if (!bye && parser.lastEventId !== this.#lastEventId) {
        this.#removeGone(run);
        this.#settle(run);
      }
      // A new id means that everything before it was delivered, even if there was nothing to deliver.
      if (waiting && parser.lastEventId !== this.#lastEventId) this.#serving();
      this.#lastEventId = parser.lastEventId;
      this.#retryMs = parser.retry ?? this.#retryMs;
      if (bye) return bye;
    }
    return { reason: 'Closed', message: 'the server ended the connection' };
  }

  /** @param {AbortSignal} signal @param {boolean} [problems] */
  async #request(signal, problems) {
    const { tenant, devices, selector, channels, interval, url, token } = this.#options;
    const base = url ?? new URL('.', document.baseURI).href;
    const path = `${String(base).replace(/\/$/, '')}/v1/${encodeURIComponent(tenant)}/events`;
    const address = new URL(path, globalThis.document?.baseURI);
    const lastEventId = this.#lastEventId || undefined;
    const query = new URLSearchParams();
    for (const device of devices ?? []) query.append('device', device);
    for (const channel of channels ?? []) query.append('channel', channel);
    for (const [name, value] of Object.entries({ selector, interval, problems, lastEventId })) {
      if (value) query.append(name, String(value));
    }
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
      init.body = JSON.stringify({ devices, selector, channels, interval, problems, lastEventId });
    }
    return { url: address.href, init };
  }

  /** @param {Response} response @returns {Promise<CloseReason>} */
  async #httpError(response) {
    const { status } = response;
    const text = await response.text().catch(() => '');
    let error;
    try {
      error = JSON.parse(text).error;
    } catch {
      // An error page of a proxy.
    }
    // These three 4xx are temporary.
    const refused = status >= 400 && status < 500 && ![408, 425, 429].includes(status);
    const after = Number(response.headers.get('retry-after') ?? NaN) * 1_000;
    return {
      refused, httpStatus: status, reason: error?.code ?? 'Http',
      message: error?.message ?? `the server answered ${status}`,
      waitMs: after > 0 ? after + this.#timers.random() * FIRST_BACKOFF_MS : undefined,
    };
  }

  /**
   * Ends an attempt and schedules the next one.
   * @param {Attempt} run @param {CloseReason} end
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

  /** Ends a connection without data for longer than its limit. @param {Attempt} run */
  #watch(run) {
    this.#timers.clearTimeout(run.timer);
    const rest = run.heardAt + run.limitMs - this.#timers.now();
    const reason = run.helloAt === null ? 'Timeout' : 'Silent';
    if (rest <= 0) this.#lost(run, { reason, message: 'nothing was heard from the server' });
    else run.timer = this.#timers.setTimeout(() => this.#watch(run), rest);
  }

  /** Marks stale values while no server does: a frozen value must never look live. */
  #watchFreshness() {
    this.#timers.clearTimeout(this.#freshnessTimer);
    if (this.state === 'live' || this.state === 'closed') return;
    this.#freshnessTimer = this.#timers.setTimeout(() => this.#watchFreshness(), 1_000);
    for (const { device, channels } of this.devices.values()) {
      for (const channel of channels.values()) {
        const age = this.age(channel);
        const { channel: name, time: since, staleAfterMs } = channel;
        if (channel.stale || age === null || staleAfterMs === null || age <= staleAfterMs) continue;
        channel.stale = true;
        this.#emit('stale', { device, channel: name, since, staleAfterMs });
        this.#emit('change', { device, channel: name });
      }
    }
  }

  /** @param {number} time the server's time @param {number} resolution of that time */
  #setClock(time, resolution) {
    if (Number.isNaN(time)) return;
    const skew = time + resolution / 2 - this.#timers.now();
    this.#skewMs = Math.abs(skew) <= SKEW_TOLERANCE_MS + resolution / 2 ? 0 : skew;
  }

  /**
   * @param {Attempt} run @param {{type: string, data: string, id: string|null}} event
   * @returns {CloseReason|null} not null if the server ends the connection
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
    const waits = type === 'bye' || (type === 'refused' && !body.device)
      || (type === 'ping' && this.state === 'waiting');
    if (type === 'devices') for (const { device } of body.added ?? []) run.gone.delete(device);
    if (!waits) this.#removeGone(run);
    if (type === 'message') this.#onData(body, id);
    else if (type === 'hello') return this.#onHello(run, body);
    else if (type === 'stale' || type === 'fresh') this.#onFreshness(run, body, type);
    else if (type === 'problem') this.#onProblem(run, body);
    else if (type === 'devices') {
      for (const device of body.added ?? []) {
        this.#put(device);
        // With another format, an older message may be the newest one that can be shown.
        this.#startAnew(this.devices.get(device.device)?.channels.values());
      }
      for (const code of body.removed ?? []) this.#remove(code);
      this.#serving();
      this.#emit('devices', body);
    } else if (type === 'gap') {
      this.stats.gaps += 1;
      this.#serving();
      const channel = this.#channel(body);
      if (channel) this.#startAnew([channel]);
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
    } // Unknown events are for later versions of this file.
    return null;
  }

  /** @param {Attempt} run @param {any} hello @returns {CloseReason|null} */
  #onHello(run, hello) {
    if (hello.protocol > 1) {
      const message = `the server speaks protocol ${hello.protocol}; reload the page`;
      return { refused: true, reason: 'UnknownProtocol', message };
    }
    this.hello = hello;
    this.#hellos += 1;
    if (run.helloAt === null) this.refusals.clear();
    // The stream was made anew or set back: its sequences are used again.
    else for (const { channels } of this.devices.values()) this.#startAnew(channels.values());
    run.settled = false;
    run.stale.clear();
    run.problems.clear();
    run.helloAt = this.#timers.now();
    run.limitMs = 2 * (hello.pingMs > 0 ? hello.pingMs : DEFAULT_PING_MS) + 1_000;
    this.#watch(run);
    const codes = new Set();
    for (const device of hello.devices ?? []) {
      codes.add(device.device);
      this.#put(device);
    }
    // A server that refuses the client, or isn't ready, describes no device. Known devices are kept until it
    // is certain that they are gone: a client that resumes doesn't get its values again.
    run.gone = new Set([...this.devices.keys()].filter((code) => !codes.has(code)));
    if (codes.size > 0) this.#removeGone(run);
    this.#become({ state: 'live' });
    this.#emit('hello', hello);
    return null;
  }

  /** @param {any} described a device as described by `hello` and `devices`; known values are kept */
  #put(described) {
    const known = this.devices.get(described.device);
    /** @type {Device} */
    const { device: code, name } = described;
    const device = known ?? { device: code, name, labels: {}, channels: new Map() };
    device.name = described.name ?? described.device;
    device.labels = described.labels ?? {};
    const before = device.channels;
    device.channels = new Map();
    for (const { channel: name, delivery, staleAfterMs = null, fields = [] } of described.channels ?? []) {
      /** @type {Channel} */
      const channel = before.get(name) ?? {
        channel: name, delivery, staleAfterMs, fields, values: null, time: null, timeMs: null, seq: null,
        bad: NONE, at: NONE, late: false, stale: false, problem: null,
      };
      Object.assign(channel, { delivery, staleAfterMs, fields });
      if (staleAfterMs === null) channel.stale = false;
      device.channels.set(name, channel);
    }
    this.refusals.delete(described.device);
    this.devices.set(described.device, device);
    this.#emit('change', { device: described.device });
  }

  /** Removes the devices that the server doesn't have any more. @param {Attempt} run */
  #removeGone(run) {
    for (const code of run.gone) this.#remove(code);
    run.gone.clear();
  }

  /** @param {string} code */
  #remove(code) {
    if (this.devices.delete(code)) this.#emit('change', { device: code });
  }

  /** Leaves the state `waiting`: the server serves again. */
  #serving() {
    if (this.state === 'waiting') this.#become({ state: 'live' });
  }

  /** Returns the channel that an event is about. @param {any} body */
  #channel(body) {
    return this.devices.get(body.device)?.channels.get(body.channel);
  }

  /** @param {Attempt} run @param {any} body @param {'stale'|'fresh'} type */
  #onFreshness(run, body, type) {
    const channel = this.#channel(body);
    if (type === 'fresh') this.#serving();
    if (channel) {
      channel.stale = type === 'stale';
      run.stale.add(channel);
    }
    this.#emit(type, body);
    if (channel) this.#emit('change', { device: body.device, channel: body.channel });
  }

  /** @param {Attempt} run @param {any} body */
  #onProblem(run, body) {
    const channel = this.#channel(body);
    if (!channel) return;
    channel.problem = body.problem ?? null;
    run.problems.add(channel);
    this.#emit('problem', body);
    this.#emit('change', { device: body.device, channel: body.channel });
  }

  /**
   * Ends what the connection before said of staleness and problems and this one didn't repeat: an id means
   * that everything before it was delivered.
   * @param {Attempt} run
   */
  #settle(run) {
    if (run.settled || run.over || run.helloAt === null) return;
    run.settled = true;
    for (const { device, channels } of this.devices.values()) {
      for (const channel of channels.values()) {
        const { channel: name, stale, problem } = channel;
        if (stale && !run.stale.has(channel)) this.#onFreshness(run, { device, channel: name }, 'fresh');
        if (problem && !run.problems.has(channel)) {
          this.#onProblem(run, { device, channel: name, problem: null });
        }
      }
    }
  }

  /** Lets the next event of each channel count whatever its sequence. @param {Iterable<Channel>} [channels] */
  #startAnew(channels = []) {
    for (const channel of channels) {
      const mark = this.#marks.get(channel);
      if (mark) Object.assign(mark, { hello: null, epoch: null });
    }
  }

  /** @param {any} body @param {string|null} id */
  #onData(body, id) {
    const { device, channel: name, time, values } = body;
    const channel = this.#channel(body);
    const timeMs = Date.parse(time);
    if (!channel || Number.isNaN(timeMs) || values === null || typeof values !== 'object') {
      this.stats.invalid += 1;
      return;
    }
    this.#serving();
    const seq = Number.isFinite(body.seq) ? body.seq : null;
    const late = body.late === true;
    const event = { time, values, bad: body.bad ?? NONE, at: body.at ?? NONE };
    const order = this.#compare(channel, seq, event);
    const now = this.#timers.now();
    const before = this.#marks.get(channel);
    if (order >= 0) {
      const at = order === 0 && before ? before.at : now;
      this.#marks.set(channel, { seq, hello: this.#hellos, epoch: this.hello?.epoch ?? null, at });
    }
    if (order <= 0) {
      this.stats.dropped += 1;
      return;
    }
    Object.assign(channel, { ...event, timeMs, seq, late, stale: false });
    this.#emit('data', { device, channel: name, timeMs, seq, late, ...event, id });
    this.#emit('change', { device, channel: name });
  }

  /**
   * Compares an event with the known one of its channel: positive if it is newer, 0 if it is the known one,
   * negative if it is older. The stream's order decides, never the time: within what follows a `hello`, that
   * is the sequence. A sequence that comes twice with other values is that of a format that was edited.
   * @param {Channel} channel @param {number|null} seq
   * @param {Pick<DataEvent, 'time'|'values'|'bad'|'at'>} event
   */
  #compare(channel, seq, event) {
    const mark = this.#marks.get(channel);
    if (!mark) return 1;
    const here = mark.hello === this.#hellos;
    if (seq !== null && mark.seq !== null && seq !== mark.seq) {
      if (here) return seq - mark.seq;
      const sameStream = mark.epoch !== null && mark.epoch === this.hello?.epoch;
      // Of an `Every` channel, known events are sent again after a broken replay, and `gap` comes when the
      // stream was set back.
      const recent = channel.delivery === 'Every' || this.#timers.now() - mark.at < BEHIND_MS;
      return sameStream && recent ? seq - mark.seq : 1;
    }
    // A server of an earlier version tells no sequence. What it sends is in order within a connection.
    if (here && (seq === null || mark.seq === null)) return 1;
    /** @param {Pick<DataEvent, 'time'|'values'|'bad'|'at'>} one */
    const content = ({ time, values, bad, at }) => JSON.stringify([time, values, bad, at]);
    // @ts-expect-error A channel with a mark has values.
    return content(channel) === content(event) ? 0 : 1;
  }
}
