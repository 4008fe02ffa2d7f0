import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoff, connect } from '../flutecast.js';
import { block, data, FakeTimers, hello, settle, start } from './fakes.mjs';

const T = (seconds) => new Date(Date.parse('2026-11-22T10:00:00Z') + seconds * 1_000).toISOString();

/** The waits between the starts of the requests, in milliseconds. */
const waits = ({ requests }) => requests.slice(1).map(({ at }, index) => at - requests[index].at);

test('backoff: the bound doubles up to the cap, on top of the server’s retry', () => {
  const settings = { maxBackoffMs: 30_000, random: () => 1 };
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7, 100].map((attempt) => backoff(attempt, settings)), [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  assert.equal(backoff(3, { ...settings, retryMs: 2_500 }), 6_500);
  assert.equal(backoff(3, { ...settings, retryMs: 2_500, random: () => 0 }), 2_500);
  assert.equal(backoff(1, { ...settings, retryMs: 1e12 }), 3_600_000, 'a wait that would overflow a timer is cut');
});

test('backoff: the jitter is full: all of the time between nothing and the bound is used', () => {
  const values = Array.from({ length: 2_000 }, () => backoff(4, { maxBackoffMs: 30_000, random: Math.random }));
  assert.ok(Math.min(...values) < 400 && Math.max(...values) > 7_600, `${Math.min(...values)} to ${Math.max(...values)}`);
});

test('an unreachable server is retried with growing waits up to the cap', async () => {
  const { feed, timers, server, states } = await start();
  timers.randomValue = 1;
  for (let attempt = 1; attempt <= 8; attempt += 1) {
    await server.fail();
    assert.deepEqual([feed.state, feed.status.reason, feed.status.attempt], ['reconnecting', 'Unreachable', attempt]);
    assert.equal(feed.status.retryAt, timers.now() + Math.min(30_000, 1_000 * 2 ** (attempt - 1)));
    await timers.advance(feed.status.retryAt - timers.now());
  }
  assert.equal(server.requests.length, 9);
  assert.equal(states()[0], 'reconnecting');
  feed.close();
});

test('the wait after the first failure is random, from none to a second', async () => {
  for (const [random, expected] of [[0, 0], [0.25, 250], [1, 1_000]]) {
    const { feed, timers, server } = await start();
    timers.randomValue = random;
    await server.fail();
    await timers.advance(2_000);
    assert.deepEqual(waits(server), [expected]);
    feed.close();
  }
});

test('the server’s retry is the least wait', async () => {
  const { feed, timers, server } = await start();
  timers.randomValue = 0.5;
  await server.stream(`retry: 3000\n\n${hello()}`);
  await server.end();
  assert.equal(feed.status.retryAt - timers.now(), 3_500);
  feed.close();
});

test('the wait that a bye asks for is kept', async () => {
  const { feed, timers, server, of } = await start();
  await server.stream(hello() + block('bye', { reason: 'Draining', retryMs: 2_350 }) + data({ speed: 1 }, T(0)));
  assert.deepEqual([feed.state, feed.status.reason], ['reconnecting', 'Draining']);
  assert.equal(feed.status.retryAt - timers.now(), 2_350);
  assert.equal(server.last.aborted, true, 'the old connection is let go');
  assert.deepEqual([of('bye').length, of('data').length], [1, 0]);
  await timers.advance(2_349);
  assert.equal(server.requests.length, 1);
  await timers.advance(1);
  assert.equal(server.requests.length, 2);
  feed.close();
});

test('a bye without a wait, or with none, does not make a storm', async () => {
  const { feed, timers, server } = await start();
  timers.randomValue = 0;
  await server.stream(hello() + block('bye', { reason: 'Full', retryMs: 0 }));
  assert.equal(feed.status.retryAt - timers.now(), 100);
  feed.close();
});

test('the count of failures is reset only by a connection that lasted', async () => {
  const { feed, timers, server } = await start();
  timers.randomValue = 1;
  for (let attempt = 1; attempt <= 4; attempt += 1) {
    await server.stream(hello());
    await server.end();
    assert.equal(feed.status.attempt, attempt, 'a server that dies after each hello is not hammered');
    await timers.advance(feed.status.retryAt - timers.now());
  }
  await server.stream(hello());
  await timers.advance(10_000);
  await server.end();
  assert.equal(feed.status.attempt, 1);
  feed.close();
});

test('resume: the last id goes with the next request, and only when its block was whole', async () => {
  const { feed, timers, server } = await start();
  assert.equal(server.last.url.searchParams.get('lastEventId'), null);
  await server.stream(`${hello()}${data({ speed: 1 }, T(0), '5f3a9c01-7')}id: 5f3a9c01-9\n\nid: 5f3a9c01-10\ndata: {`);
  assert.equal(feed.lastEventId, '5f3a9c01-9');
  await server.end();
  await timers.advance(2_000);
  assert.equal(server.last.url.searchParams.get('lastEventId'), '5f3a9c01-9');
  await server.stream(hello());
  await server.end();
  await timers.advance(5_000);
  assert.equal(server.requests.length, 3);
  assert.equal(server.last.url.searchParams.get('lastEventId'), '5f3a9c01-9', 'a connection without ids keeps it');
  feed.close();
});

test('resume: a feed can start where another one ended', async () => {
  const { feed, server } = await start({ lastEventId: '5f3a9c01-3' });
  assert.equal(server.last.url.searchParams.get('lastEventId'), '5f3a9c01-3');
  feed.close();
});

test('silence: without a hello the attempt is given up after 15 s', async () => {
  const { feed, timers, server } = await start();
  await timers.advance(14_999);
  assert.equal(feed.state, 'connecting');
  await timers.advance(1);
  assert.deepEqual([feed.state, feed.status.reason, server.last.aborted], ['reconnecting', 'Timeout', true]);
  feed.close();
});

test('silence: a connection without even a ping is given up after two ping times and a second', async () => {
  const { feed, timers, server } = await start();
  await server.stream(hello(undefined, { pingMs: 4_000 }));
  await timers.advance(8_000);
  await server.write(block('ping', { time: T(8) }));
  await timers.advance(8_999);
  assert.equal(feed.state, 'live');
  await server.write(': any byte counts\n');
  await timers.advance(8_999);
  assert.equal(feed.state, 'live');
  await timers.advance(1);
  assert.deepEqual([feed.state, feed.status.reason, server.last.aborted], ['reconnecting', 'Silent', true]);
  feed.close();
});

for (const [status, reason] of [[400, 'BadRequest'], [401, 'Unauthorized'], [403, 'Forbidden'], [404, 'NotFound'], [405, 'Http'], [413, 'Http']]) {
  test(`${status} is a refusal: reported with its reason, and retried only after a long time`, async () => {
    const { feed, timers, server } = await start();
    const body = reason === 'Http' ? '<h1>no</h1>' : JSON.stringify({ error: { code: reason, message: 'what would be right' } });
    await server.answer(status, body);
    assert.deepEqual([feed.state, feed.status.reason, feed.status.httpStatus], ['refused', reason, status]);
    assert.equal(feed.status.message, reason === 'Http' ? `the server answered ${status}` : 'what would be right');
    await timers.advance(59_999);
    assert.equal(server.requests.length, 1);
    await timers.advance(1);
    assert.equal(server.requests.length, 2);
    assert.equal(feed.state, 'refused', 'until the answer is known, it stays');
    await server.stream(hello());
    assert.equal(feed.state, 'live');
    feed.close();
  });
}

test('a refusal is never retried if the page says so', async () => {
  const { feed, timers, server } = await start({ refusedRetryMs: 0 });
  await server.answer(401);
  assert.equal(feed.status.retryAt, null);
  await timers.advance(3_600_000);
  assert.equal(server.requests.length, 1);
  feed.reconnect({ token: 'better' });
  await settle();
  assert.equal(server.last.init.headers.authorization, 'Bearer better');
  feed.close();
});

for (const status of [408, 425, 429, 500, 502, 503, 504]) {
  test(`${status} passes: the feed reconnects`, async () => {
    const { feed, timers, server } = await start();
    await server.answer(status);
    assert.deepEqual([feed.state, feed.status.httpStatus], ['reconnecting', status]);
    await timers.advance(1_000);
    assert.equal(server.requests.length, 2);
    feed.close();
  });
}

test('Retry-After is honoured', async () => {
  const { feed, timers, server } = await start();
  await server.answer(503, '', { 'retry-after': '20' });
  assert.equal(feed.status.retryAt - timers.now(), 20_500);
  feed.close();
});

test('an answer that is no event stream is not taken for one', async () => {
  const { feed, server } = await start();
  await server.answer(200, '<h1>Sign in</h1>', { 'content-type': 'text/html' });
  assert.deepEqual([feed.state, feed.status.reason], ['reconnecting', 'NotAStream']);
  feed.close();
});

test('a later protocol is a refusal', async () => {
  const { feed, server } = await start();
  await server.stream(hello(undefined, { protocol: 2 }));
  assert.deepEqual([feed.state, feed.status.reason], ['refused', 'UnknownProtocol']);
  assert.equal(feed.devices.size, 0);
  feed.close();
});

test('the token goes in a header, never in the address, and is asked for before each attempt', async () => {
  const tokens = ['first', 'second', null];
  const { feed, timers, server } = await start({ token: async () => tokens.shift() });
  await settle();
  assert.equal(server.last.init.headers.authorization, 'Bearer first');
  assert.ok(!server.last.url.href.includes('first'));
  await server.fail();
  await timers.advance(1_000);
  assert.equal(server.last.init.headers.authorization, 'Bearer second');
  await server.fail();
  await timers.advance(2_000);
  assert.equal(server.last.init.headers.authorization, undefined);
  feed.close();
});

test('a token function that fails is retried', async () => {
  const { feed, server } = await start({ token: () => Promise.reject(new Error('signed out')) });
  await settle();
  assert.deepEqual([feed.state, feed.status.reason, feed.status.message, server.requests.length], ['reconnecting', 'Token', 'signed out', 0]);
  feed.close();
});

test('the request contains the options', async () => {
  const { feed, server } = await start({ devices: ['CORR-01', 'a/b:c'], selector: 'line in (l1,l2)', channels: ['telemetry', 'power'], interval: '500ms', url: 'http://plant.example/flutecast' });
  const { url, init } = server.last;
  assert.equal(url.pathname, '/flutecast/v1/demo/events');
  assert.deepEqual([...url.searchParams], [['device', 'CORR-01'], ['device', 'a/b:c'], ['channel', 'telemetry'], ['channel', 'power'], ['selector', 'line in (l1,l2)'], ['interval', '500ms']]);
  assert.equal(init.method ?? 'GET', 'GET');
  assert.equal(init.headers.accept, 'text/event-stream');
  feed.close();
});

test('a list too long for an address goes in a body', async () => {
  const devices = Array.from({ length: 300 }, (_, index) => `CORR-${index}`);
  const { feed, server, timers } = await start({ devices, interval: '1s' });
  const { url, init } = server.last;
  assert.deepEqual([url.search, init.method, init.headers['content-type']], ['', 'POST', 'application/json']);
  assert.deepEqual(JSON.parse(init.body), { devices, interval: '1s' });
  await server.stream(`${hello()}id: e1-1\n\n`);
  await server.end();
  await timers.advance(1_000);
  assert.equal(JSON.parse(server.last.init.body).lastEventId, 'e1-1');
  feed.close();
});

test('missing options are refused at once', () => {
  assert.throws(() => connect({}), TypeError);
  assert.throws(() => connect({ tenant: 'demo' }), TypeError);
  assert.throws(() => connect({ tenant: 'demo', devices: [] }), TypeError);
});

test('close ends everything: the request, the timers, and for good', async () => {
  const moments = {
    'while it connects': async () => {},
    'while it is live': ({ server }) => server.stream(hello()),
    'while it waits to reconnect': ({ server }) => server.fail(),
    'after a refusal': ({ server }) => server.answer(401),
    'while stale values are watched': async ({ server, timers }) => {
      await server.stream(hello() + data({ speed: 1 }, T(0)));
      await server.end();
      await timers.advance(100);
    },
  };
  for (const [moment, reach] of Object.entries(moments)) {
    const all = await start();
    await reach(all);
    all.feed.close();
    await settle();
    assert.equal(all.feed.state, 'closed', moment);
    assert.equal(all.timers.pending.size, 0, `${moment}: a timer is left`);
    const { length } = all.server.requests;
    if (!['while it waits to reconnect', 'after a refusal'].includes(moment)) assert.equal(all.server.last.aborted, true, moment);
    all.feed.reconnect();
    await all.timers.advance(600_000);
    assert.equal(all.server.requests.length, length, `${moment}: it asked again`);
    assert.equal(all.states().filter((state) => state === 'closed').length, 1);
  }
});

test('an abort signal closes it', async () => {
  const controller = new AbortController();
  const { feed, timers, server } = await start({ signal: controller.signal });
  await server.stream(hello());
  controller.abort();
  assert.deepEqual([feed.state, timers.pending.size, server.last.aborted], ['closed', 0, true]);
  const late = await start({ signal: controller.signal });
  assert.deepEqual([late.feed.state, late.server.requests.length], ['closed', 0]);
});

test('in a page: coming back into view or online ends a long wait, but not one that the server asked for', async () => {
  globalThis.window = new EventTarget();
  globalThis.document = Object.assign(new EventTarget(), { visibilityState: 'visible', baseURI: 'http://plant.example/screens/1.html' });
  try {
    const { feed, timers, server } = await start({ url: undefined });
    assert.equal(server.last.url.pathname, '/screens/v1/demo/events', 'the address is relative to the page');
    timers.randomValue = 1;
    for (let count = 0; count < 6; count += 1) {
      await server.fail();
      if (count < 5) await timers.advance(feed.status.retryAt - timers.now());
    }
    timers.randomValue = 0.2;
    assert.equal(feed.status.retryAt - timers.now(), 30_000);
    window.dispatchEvent(new Event('online'));
    assert.equal(feed.status.retryAt - timers.now(), 200);
    assert.equal(feed.status.reason, 'Unreachable');
    await timers.advance(200);
    await server.stream(hello() + block('bye', { reason: 'Full', retryMs: 20_000 }));
    document.dispatchEvent(new Event('visibilitychange'));
    assert.equal(feed.status.retryAt - timers.now(), 20_000);
    await timers.advance(20_000);
    await server.stream(hello());
    assert.equal(feed.state, 'live');
    document.dispatchEvent(new Event('visibilitychange'));
    assert.equal(feed.state, 'live', 'a connection that was heard of lately is trusted');
    timers.time += 100_000; // The machine slept: no timer ran.
    document.dispatchEvent(new Event('visibilitychange'));
    assert.deepEqual([feed.state, feed.status.reason], ['reconnecting', 'Silent']);
    feed.close();
    const { length } = server.requests;
    window.dispatchEvent(new Event('online'));
    await timers.advance(60_000);
    assert.equal(server.requests.length, length);
  } finally {
    delete globalThis.window;
    delete globalThis.document;
  }
});

test('without injected timers it uses the machine’s', async () => {
  const timers = new FakeTimers();
  const feed = connect({ url: 'http://plant.example', tenant: 'demo', devices: ['*'], fetch: () => Promise.reject(new TypeError('down')) });
  await settle();
  assert.equal(feed.state, 'reconnecting');
  assert.ok(feed.status.retryAt - Date.now() <= 1_000);
  feed.close();
  assert.equal(timers.pending.size, 0);
});
