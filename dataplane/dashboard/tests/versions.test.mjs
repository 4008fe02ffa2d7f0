/**
 * Versions that meet. `before/` has two streams of the data plane of the version before, as it sent them, and
 * its client. A controller's clock jumps to 2036 at the end of the first stream, so that pod shows nothing more
 * of it; the second is that of a pod that started later.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { connect } from '../flutecast.js';
import { connect as connectBefore } from './before/flutecast.js';
import { openBrowser } from './chromium.mjs';
import { block, data, hello, helloBefore, numbered, start } from './fakes.mjs';
import { startMock } from './mock-server.mjs';

const PATIENCE_MS = 20_000;
const [FIRST, SECOND] = await Promise.all(['first-pod', 'second-pod'].map((name) => readFile(new URL(`before/${name}.sse`, import.meta.url), 'utf8')));
const QUICK = '\nretry: 1\n\n';

async function serve(context, recorded) {
  const mock = await startMock({ recorded });
  context.after(() => mock.stop());
  return mock;
}

/** Waits until `happened` returns true. */
async function until(happened, what) {
  for (const end = Date.now() + PATIENCE_MS; !happened(); await new Promise((resolve) => setTimeout(resolve, 10))) {
    assert.ok(Date.now() < end, what());
  }
}

test('a new page and old pods: events count as they come, over a reconnect too', async (context) => {
  const mock = await serve(context, [FIRST + QUICK, SECOND + QUICK]);
  const feed = connect({ url: mock.url, tenant: 'demo', devices: ['CORR-01'], problems: true });
  context.after(() => feed.close());
  const seen = [];
  feed.addEventListener('data', ({ detail }) => seen.push(detail));
  const speeds = () => seen.filter(({ channel }) => channel === 'telemetry').map(({ values }) => values.speed);
  const codes = () => seen.filter(({ channel }) => channel === 'alarms').map(({ values }) => `${values.code} ${values.severity}`);
  await until(() => codes().length === 2, () => JSON.stringify(seen));
  assert.deepEqual([speeds().slice(-2), codes()], [[182.4, 999.9], ['17 warning', '23 critical']]);
  assert.equal(feed.devices.get('CORR-01').channels.get('telemetry').time, '2036-01-01T00:00:00.000Z');
  const before = speeds().length;
  await mock.control({ drop: true });
  await until(() => codes().length === 4, () => JSON.stringify(seen));
  assert.deepEqual(speeds().slice(before), [153, 184, 185]);
  assert.deepEqual(codes().slice(2), ['23 cleared', '41 critical']);
  assert.ok(seen.every(({ seq, late, bad, at }) => seq === null && !late && Object.keys({ ...bad, ...at }).length === 0));
});

test('a new page that lands on an old pod and comes back: each connection counts', async (context) => {
  const mock = await serve(context, [SECOND + QUICK]);
  const feed = connect({ url: mock.url, tenant: 'demo', devices: ['CORR-01'] });
  context.after(() => feed.close());
  const values = () => feed.devices.get('CORR-01')?.channels.get('telemetry')?.values;
  await until(() => values()?.speed === 185, () => JSON.stringify(values()));
  await mock.control({ drop: true });
  await until(() => feed.hello?.epoch && feed.devices.get('CORR-01').channels.get('telemetry').seq > 0, () => JSON.stringify(feed.hello));
});

test('a new page that asks for problems: an old pod is asked again without, a new one with; another 400 is a refusal', async () => {
  const { feed, server, timers, states } = await start({ problems: true });
  const asked = () => server.requests.map(({ url }) => url.searchParams.get('problems'));
  await server.answer(400, JSON.stringify({ error: { code: 'BadRequest', message: 'problems: not a parameter of this address' } }));
  await server.stream(helloBefore());
  assert.deepEqual([asked(), feed.state, states()], [['true', null], 'live', ['live']]);
  await server.end();
  await timers.advance(1_000);
  assert.deepEqual(asked(), ['true', null, 'true']);
  await server.stream(hello());
  assert.equal(feed.state, 'live');
  await server.end();
  await timers.advance(5_000);
  await server.answer(400, JSON.stringify({ error: { code: 'BadRequest', message: 'selector: …' } }));
  assert.deepEqual([asked().length, feed.state], [4, 'refused']);
  feed.close();
});

/** A feed of the version before that has got `text`. */
async function old(text) {
  const all = await start({ connect: connectBefore });
  await all.server.stream(text);
  return all;
}

test('an old page and a new pod: it shows what it knows of, and takes no harm from the rest', async () => {
  const T = (seconds) => new Date(Date.parse('2026-11-22T10:00:00Z') + seconds * 1_000).toISOString();
  const { feed, of } = await old(hello() + numbered({ speed: null, state: 'running' }, T(0), 5, { bad: { speed: 'NaN' }, at: { state: T(-9) } })
    + block('problem', { device: 'CORR-01', channel: 'telemetry', problem: { reason: 'BadField' } })
    + numbered({ on: 1 }, T(0), 6, { channel: 'power' }) + 'id: e1-6\n\n'
    + data({ on: 2 }, T(-60), 'e1-7', { channel: 'power', seq: 7, late: true }) + data({ on: 3 }, T(1), 'e1-8', { channel: 'power', seq: 8 })
    + data({ on: 4 }, T(-60), 'e1-9', { channel: 'power', seq: 9, late: true }));
  assert.deepEqual(feed.devices.get('CORR-01').channels.get('telemetry').values, { speed: null, state: 'running' });
  const ons = () => of('data').filter(({ channel }) => channel === 'power').map(({ values }) => values.on);
  assert.deepEqual(ons(), [1, 3, 4], 'a late event is missing directly behind a snapshot or replay, until one with an id has come');
  assert.deepEqual([feed.state, feed.stats.invalid], ['live', 0]);
  feed.close();
});

test('an old page and a second hello: it goes on', async () => {
  const T = (seconds) => new Date(Date.parse('2026-11-22T10:00:00Z') + seconds * 1_000).toISOString();
  const { feed, server } = await old(hello() + numbered({ speed: 1 }, T(0), 500) + 'id: e1-500\n\n');
  await server.write(hello() + block('gap', { device: 'CORR-01', channel: 'power', reason: 'Retention', lost: null })
    + numbered({ speed: 2 }, T(1), 3) + 'id: e1-3\n\n' + data({ speed: 3 }, T(2), 'e1-4', { seq: 4 }));
  assert.deepEqual([feed.state, feed.devices.get('CORR-01').channels.get('telemetry').values.speed], ['live', 3]);
  feed.close();
});

/** @type {Awaited<ReturnType<typeof openBrowser>>} */
let browser;
before(async () => { browser = await openBrowser(); });
after(() => browser.close());

test('the new dashboard on old pods shows all, and a time of 2036 freezes nothing', async (context) => {
  const mock = await serve(context, [FIRST + QUICK, SECOND + QUICK]);
  const page = await browser.page({ width: 1600, height: 1000 });
  await page.open(mock.url);
  const speed = 'document.querySelector(\'[data-device="CORR-01"] [data-field="speed"]\')?.textContent';
  const alarms = 'document.getElementById("alarm-list").textContent';
  await page.until(`${speed} === '999.9' && ${alarms}.includes('Web tension low') && ${alarms}.includes('Glue level')`, PATIENCE_MS);
  await mock.control({ drop: true });
  await page.until(`${speed} === '185.0' && ${alarms}.includes('Paper break')`, PATIENCE_MS);
  assert.equal(await page.evaluate('document.querySelectorAll(".raw:not([hidden]), .problem:not([hidden])").length'), 0);
  // The browser itself reports the refused requests and the lost connection.
  assert.deepEqual(page.problems.filter((text) => !/ERR_|status of 400/.test(text)), []);
});
