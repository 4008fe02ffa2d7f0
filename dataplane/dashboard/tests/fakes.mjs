/**
 * A clock that a test moves, and a server that a test answers for.
 */
import { connect } from '../flutecast.js';

// Node 18, the one of Debian 12, lacks it; browsers have it.
globalThis.CustomEvent ??= class CustomEvent extends Event {
  constructor(type, { detail = null, ...init } = {}) {
    super(type, init);
    this.detail = detail;
  }
};

/** Runs all pending microtasks and callbacks. */
export const settle = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

export class FakeTimers {
  time;
  randomValue = 0.5;
  #sequence = 0;
  pending = new Map();

  constructor(time = Date.parse('2026-11-22T10:00:00Z')) {
    this.time = time;
    this.now = () => this.time;
    this.random = () => this.randomValue;
    this.setTimeout = (callback, ms) => {
      this.#sequence += 1;
      this.pending.set(this.#sequence, { at: this.time + ms, callback });
      return this.#sequence;
    };
    this.clearTimeout = (timer) => this.pending.delete(timer);
  }

  /** Moves the clock, and runs each timer at its own time. */
  async advance(ms) {
    const end = this.time + ms;
    for (;;) {
      await settle();
      const [next] = [...this.pending].sort(([, a], [, b]) => a.at - b.at);
      if (!next || next[1].at > end) break;
      this.pending.delete(next[0]);
      this.time = Math.max(this.time, next[1].at);
      next[1].callback();
    }
    this.time = end;
    await settle();
  }
}

/** Keeps each request in `requests`, until `answer`, `stream` or `fail` is called. */
export class FakeServer {
  requests = [];

  constructor(timers) {
    this.fetch = (url, init) => new Promise((resolve, reject) => {
      const request = { url: new URL(url), init, at: timers.now(), resolve, reject, aborted: false, controller: null };
      init.signal.addEventListener('abort', () => {
        request.aborted = true;
        reject(new DOMException('aborted', 'AbortError'));
        try {
          request.controller?.error(new DOMException('aborted', 'AbortError'));
        } catch {
          // It had ended before.
        }
      });
      this.requests.push(request);
    });
  }

  get last() {
    return this.requests[this.requests.length - 1];
  }

  /** Answers the last request with an error. */
  async answer(status, body = '', headers = {}) {
    this.last.resolve(new Response(body, { status, headers }));
    await settle();
  }

  /** Fails the last request as unreachable. */
  async fail(message = 'connect refused') {
    this.last.reject(new TypeError(message));
    await settle();
  }

  /** Answers the last request with a stream that starts with `text`. */
  async stream(text = '', headers = {}) {
    const request = this.last;
    const body = new ReadableStream({ start: (controller) => { request.controller = controller; } });
    request.resolve(new Response(body, { headers: { 'content-type': 'text/event-stream', ...headers } }));
    await this.write(text);
  }

  async write(text) {
    if (text !== '') this.last.controller.enqueue(typeof text === 'string' ? new TextEncoder().encode(text) : text);
    await settle();
  }

  async end() {
    this.last.controller.close();
    await settle();
  }
}

export const telemetry = { channel: 'telemetry', delivery: 'Latest', staleAfterMs: 10_000, fields: [{ name: 'speed', type: 'Number', unit: 'm/min', decimals: 1 }] };
export const power = { channel: 'power', delivery: 'Every', staleAfterMs: null, fields: [{ name: 'on', type: 'Bool' }] };
export const device = (code = 'CORR-01', channels = [telemetry, power]) => ({ device: code, name: code.toLowerCase(), labels: { line: 'l1' }, channels });
export const block = (event, body, id) => `${id ? `id: ${id}\n` : ''}${event ? `event: ${event}\n` : ''}data: ${JSON.stringify(body)}\n\n`;
/** `hello` of the version before, which names no epoch. */
export const helloBefore = (devices = [device()], more = {}) => block('hello', { protocol: 1, tenant: 'demo', server: 'test', resumed: false, pingMs: 15_000, devices, ...more });
export const hello = (devices, more = {}) => helloBefore(devices, { epoch: 'e1', ...more });
/** A data event of the version before, without a sequence. */
export const data = (values, time, id, { code = 'CORR-01', channel = 'telemetry', ...more } = {}) => block(null, { device: code, channel, time, values, ...more }, id);
/** A data event with a sequence, without an id, as in a snapshot. */
export const numbered = (values, time, seq, more = {}) => data(values, time, undefined, { ...more, seq });

/** A feed on a fake clock and a fake server, and its events. */
export async function start({ connect: open = connect, ...options } = {}) {
  const timers = new FakeTimers();
  const server = new FakeServer(timers);
  const feed = open({ url: 'http://plant.example/', tenant: 'demo', devices: ['*'], fetch: server.fetch, timers, ...options });
  const said = [];
  for (const type of ['state', 'hello', 'data', 'stale', 'fresh', 'gap', 'problem', 'refused', 'devices', 'bye', 'ping', 'change']) {
    feed.addEventListener(type, ({ detail }) => said.push(type === 'state' ? `state ${detail.state}` : [type, detail]));
  }
  /** Returns the details of the events of one type so far. */
  const of = (type) => said.filter((one) => Array.isArray(one) && one[0] === type).map(([, detail]) => detail);
  const states = () => said.filter((one) => typeof one === 'string').map((one) => one.slice('state '.length));
  await settle();
  return { feed, timers, server, said, of, states };
}
