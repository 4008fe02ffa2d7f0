/**
 * A stand-in for the data plane, for the dashboard's development and tests: serves the dashboard's folder with the
 * data plane's content security policy, and simulates the demo line over the public protocol.
 *
 *     node dataplane/dashboard/tests/mock-server.mjs [--port 8090] [--copies 40] [--token secret] [--history 180]
 *
 * `--copies` is the number of lines. `POST /control` with {"stale":"SLIT-01"}, {"gap":{…}}, {"drop":true},
 * {"bye":{…}}, {"silent":true} or {"away":true} causes these events; {"send":"…"} is sent as it is, and
 * {"data":{…}} as the next message of the stream.
 */
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import process from 'node:process';

const FOLDER = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' };
const EPOCH = '5f3a9c01';
/** The same as in dataplane/src/http/dashboard.rs. */
const CONTENT_SECURITY_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
  + "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

const number = (name, unit, decimals) => ({ name, type: 'Number', unit, decimals });
const state = { name: 'state', type: 'Enum' };
const telemetry = (fields) => ({ channel: 'telemetry', delivery: 'Latest', staleAfterMs: 10_000, fields: [...fields, state] });
const power = { channel: 'power', delivery: 'Every', staleAfterMs: null, fields: [{ name: 'on', type: 'Bool' }] };
const alarms = {
  channel: 'alarms', delivery: 'Every', staleAfterMs: null,
  fields: [{ name: 'code', type: 'Number', decimals: 0 }, { name: 'severity', type: 'String' }, { name: 'text', type: 'String' }],
};
const counters = (unit) => ({
  channel: 'counters', delivery: 'Every', staleAfterMs: null,
  fields: [{ name: 'order', type: 'String' }, number('good', unit, 0), number('total', unit, 0), { name: 'yield', type: 'Computed', unit: '%', decimals: 1 }],
});

/** The machines of the demo line: their `hello`, and how their values move: [middle, swing, noise]. */
const MACHINES = [
  {
    code: 'CORR-01', name: 'corrugator-1', type: 'corrugator', hz: 5, extra: [counters('m'), alarms], rate: 3.1,
    fields: [number('speed', 'm/min', 1), number('steamPreheater1', 'bar', 2), number('steamPreheater2', 'bar', 2), number('steamDoubleBacker', 'bar', 2),
      number('tempPreheater1', '°C', 1), number('tempPreheater2', '°C', 1), number('tempDoubleBacker', '°C', 1), number('glueGap', 'µm', 0), number('webTension', 'N', 0)],
    moves: [[182, 9, 0.6], [10.4, 0.15, 0.02], [10.1, 0.2, 0.02], [11.2, 0.1, 0.02], [178, 1.5, 0.2], [175, 2, 0.2], [169, 1, 0.1], [120, 6, 1], [412, 18, 5]],
  },
  { code: 'SLIT-01', name: 'slitter-1', type: 'slitter-scorer', hz: 2, extra: [], fields: [number('speed', 'm/min', 1), number('knives', undefined, 0), number('trimLeft', 'mm', 1), number('trimRight', 'mm', 1)],
    moves: [[181, 9, 0.6], [6, 0, 0], [14.2, 0.3, 0.1], [13.8, 0.3, 0.1]] },
  { code: 'FLEX-01', name: 'flexo-1', type: 'flexo', hz: 5, extra: [counters('sheets'), alarms], rate: 2.6,
    fields: [number('speed', 'sheets/h', 0), number('inkViscosity', 's', 1), number('inkTemp', '°C', 1), number('registerError', 'µm', 0)],
    moves: [[9400, 400, 30], [21.4, 0.6, 0.1], [23.1, 0.3, 0.05], [0, 90, 40]] },
  { code: 'DIE-01', name: 'die-cutter-1', type: 'die-cutter', hz: 2, extra: [counters('sheets')], rate: 2.4, fields: [number('strokes', '1/min', 0), number('pressure', 'kN', 1)], moves: [[148, 6, 1], [2410, 40, 12]] },
  { code: 'STACK-01', name: 'stacker-1', type: 'stacker', hz: 1, extra: [counters('sheets'), alarms], rate: 2.3, fields: [number('height', 'mm', 0), number('pileCount', undefined, 0)], moves: [[900, 600, 0], [14, 0, 0]] },
];

const ALARMS = [[17, 'warning', 'Web tension low'], [23, 'warning', 'Glue level below 15 %'], [41, 'critical', 'Paper break at the double backer'], [8, 'warning', 'Ink viscosity high'], [52, 'critical', 'Pile not centred']];

/** The simulated line. */
class Line {
  constructor({ copies, history, random }) {
    this.random = random;
    this.sequence = 1_000;
    this.devices = [];
    this.paused = new Set();
    for (let copy = 1; copy <= copies; copy += 1) {
      for (const machine of MACHINES) {
        const code = machine.code.replace('01', String(copy).padStart(2, '0'));
        this.devices.push({
          machine, code, on: true, good: 41_000 + copy, total: 42_100 + copy, last: new Map(), active: null, phase: this.random() * 6, due: 0, second: 0,
          hello: {
            device: code, name: machine.name.replace('1', String(copy)), labels: { line: `l${copy}`, type: machine.type },
            channels: [telemetry(machine.fields), power, ...machine.extra],
          },
        });
      }
    }
    this.start = Date.now() - history * 1_000;
  }

  /** @returns {object[]} the data events that happen up to `now`, in order */
  *step(device, now) {
    const { machine } = device;
    if (this.paused.has(device.code)) return;
    const t = now / 1_000;
    const running = device.on;
    const values = {};
    machine.fields.forEach(({ name, decimals }, index) => {
      const [middle, swing, noise] = machine.moves[index];
      let value = middle + swing * Math.sin(t / (17 + index * 5) + device.phase) * Math.sin(t / 61 + index) + noise * (this.random() - 0.5);
      if (machine.type === 'stacker' && name === 'height') value = 150 + ((t * 22 + device.phase * 100) % 1500);
      if (!running && ['speed', 'strokes'].includes(name)) value = 0;
      values[name] = Number(value.toFixed(decimals));
    });
    values.state = running ? 'running' : 'stopped';
    yield this.event(device, 'telemetry', now, values);
    if (Math.floor(t) === device.second) return;
    device.second = Math.floor(t);
    if (machine.rate && running && device.second % 2 === 0) {
      const made = Math.round(machine.rate * 2 + this.random());
      device.total += made;
      device.good += this.random() < 0.08 ? made - 1 : made;
      yield this.event(device, 'counters', now, { order: 'A-1042', good: device.good, total: device.total, yield: Number(((device.good / device.total) * 100).toFixed(1)) });
    }
    if (machine.extra.includes(alarms) && this.random() < 0.025) {
      const [code, severity, text] = device.active ?? ALARMS[Math.floor(this.random() * ALARMS.length)];
      yield this.event(device, 'alarms', now, { code, severity: device.active ? 'cleared' : severity, text });
      device.active = device.active ? null : [code, severity, text];
    }
    if (!device.last.has('power')) yield this.event(device, 'power', now, { on: true });
  }

  event(device, channel, now, values) {
    this.sequence += 1;
    const event = { id: `${EPOCH}-${this.sequence}`, body: { device: device.code, channel, seq: this.sequence, time: new Date(now).toISOString(), values } };
    device.last.set(channel, event);
    return event;
  }

  /** A data event with the next sequence. */
  numbered(body) {
    this.sequence += 1;
    return { id: `${EPOCH}-${this.sequence}`, body: { ...body, seq: this.sequence } };
  }

  setPower(code, on) {
    const device = this.devices.find((one) => one.code === code);
    device.on = on;
    return this.event(device, 'power', Date.now(), { on });
  }
}

/** A small deterministic generator (mulberry32), so that screenshots can be repeated. */
export function seeded(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const block = ({ id, event, body, retry }) =>
  `${retry ? `retry: ${retry}\n` : ''}${id ? `id: ${id}\n` : ''}${event ? `event: ${event}\n` : ''}data: ${JSON.stringify(body)}\n\n`;

/**
 * Starts the server.
 * @param {{port?: number, copies?: number, token?: string, history?: number, seed?: number, pingMs?: number, recorded?: string[]}} options
 *   `recorded`: event streams, one for each connection, in place of simulated values;
 *   `history`: seconds of values that a new client gets at once, for screenshots (a real server sends only the newest)
 */
export async function startMock({ port = 0, copies = 1, token, history = 0, seed = 7, pingMs = 15_000, recorded = [] } = {}) {
  const line = new Line({ copies, history, random: seeded(seed) });
  const past = [];
  for (let now = line.start; now < Date.now(); now += 500) for (const device of line.devices) past.push(...line.step(device, now));
  if (history === 0) for (const device of line.devices) past.push(...line.step(device, Date.now()));
  const clients = new Set();
  /** The clients of recorded streams, which get nothing else. */
  const replayed = new Set();
  const stale = new Set();
  let away = false;
  let silent = false;
  const send = (text) => silent || clients.forEach((client) => client.write(text));

  const ticker = setInterval(() => {
    const now = Date.now();
    while (past.length > 0 && Date.parse(past[0].body.time) < now - history * 1_000) past.shift();
    for (const device of line.devices) {
      if (device.due > now) continue;
      device.due = now + 1_000 / device.machine.hz;
      for (const event of line.step(device, now)) {
        send(block(event));
        if (history > 0) past.push(event);
      }
      const age = now - Date.parse(device.last.get('telemetry').body.time);
      if (age > 10_000 && !stale.has(device.code)) {
        stale.add(device.code);
        send(block({ event: 'stale', body: { device: device.code, channel: 'telemetry', since: device.last.get('telemetry').body.time, staleAfterMs: 10_000 } }));
      }
    }
  }, 50);

  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    if (request.method === 'POST' && url.pathname === '/control') {
      const order = JSON.parse(await text(request));
      if (order.stale) line.paused.add(order.stale);
      if (order.fresh) {
        line.paused.delete(order.fresh);
        stale.delete(order.fresh);
        send(block({ event: 'fresh', body: { device: order.fresh, channel: 'telemetry' } }));
      }
      if (order.power) send(block(line.setPower(order.power, order.on)));
      if (order.gap) send(block({ event: 'gap', body: order.gap }));
      if (order.alarm) send(block(line.event(line.devices.find((d) => d.code === order.alarm.device), 'alarms', Date.now(), order.alarm.values)));
      if (order.send) send(order.send);
      if (order.data) send(block(line.numbered(order.data)));
      if (order.bye) send(block({ event: 'bye', retry: order.bye.retryMs, body: order.bye }));
      if ('away' in order) away = order.away;
      if ('silent' in order) silent = order.silent;
      if (order.drop || order.away || order.bye) for (const client of [...clients, ...replayed]) client.destroy();
      return response.writeHead(204).end();
    }
    if (/^\/v1\/[^/]+\/events$/.test(url.pathname)) {
      if (away) return request.socket.destroy();
      if (token && request.headers.authorization !== `Bearer ${token}` && url.searchParams.get('access_token') !== token) {
        return response.writeHead(401, { 'content-type': 'application/json' }).end(JSON.stringify({ error: { code: 'Unauthorized', message: 'A token is needed.' } }));
      }
      // Recorded streams are those of the version before, which refuses a parameter that it doesn't know.
      if (recorded.length > 0 && url.searchParams.has('problems')) {
        const message = 'problems: not a parameter of this address (its value is "true"); it takes device, selector, channel, interval, lastEventId and access_token';
        return response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify({ error: { code: 'BadRequest', message } }));
      }
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      if (recorded.length > 0) {
        response.write(recorded.shift());
        replayed.add(response);
        return response.on('close', () => replayed.delete(response));
      }
      response.write(block({ event: 'hello', retry: 2_000, body: {
        protocol: 1, tenant: 'demo', connection: 'c-2f9a61d0', server: 'flutecast-mock', epoch: EPOCH, resumed: false, pingMs, devices: line.devices.map((device) => device.hello),
      } }));
      for (const event of history > 0 && clients.size === 0 ? past : []) response.write(block({ body: event.body }));
      for (const device of line.devices) for (const event of device.last.values()) response.write(block({ body: event.body }));
      for (const code of stale) {
        const device = line.devices.find((one) => one.code === code);
        response.write(block({ event: 'stale', body: { device: code, channel: 'telemetry', since: device.last.get('telemetry').body.time, staleAfterMs: 10_000 } }));
      }
      clients.add(response);
      response.on('close', () => clients.delete(response));
      return undefined;
    }
    const name = url.pathname === '/' ? 'index.html' : path.basename(url.pathname);
    try {
      const body = await readFile(path.join(FOLDER, name));
      response.writeHead(200, { 'content-type': TYPES[path.extname(name)] ?? 'text/plain', 'content-security-policy': CONTENT_SECURITY_POLICY, 'cache-control': 'no-store' });
      return response.end(body);
    } catch {
      return response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    line, clients,
    control: (order) => fetch(`http://127.0.0.1:${server.address().port}/control`, { method: 'POST', body: JSON.stringify(order) }),
    stop: () => {
      clearInterval(ticker);
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

async function text(request) {
  let all = '';
  for await (const chunk of request) all += chunk;
  return all;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const argument = (name) => {
    const at = process.argv.indexOf(`--${name}`);
    return at < 0 ? undefined : process.argv[at + 1];
  };
  const mock = await startMock({
    port: Number(argument('port') ?? 8090), copies: Number(argument('copies') ?? 1), token: argument('token'), history: Number(argument('history') ?? 0),
  });
  console.log(`dashboard with simulated values: ${mock.url}`);
}
