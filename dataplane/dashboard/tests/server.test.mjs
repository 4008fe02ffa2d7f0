/** The client with a real HTTP server and real sockets. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { connect } from '../flutecast.js';
import { block, data, hello } from './fakes.mjs';
import { startMock } from './mock-server.mjs';

const T = (seconds) => new Date(Date.parse('2026-11-22T10:00:00Z') + seconds * 1_000).toISOString();

/** Waits for a condition; on a timeout, fails with the last value. */
async function until(what, condition, seen = () => '') {
  const end = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`${what}: not within 10 s; ${JSON.stringify(seen())}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A server whose n-th answer is `answers[n]`. */
async function serve(context, ...answers) {
  const requests = [];
  const server = createServer((request, response) => {
    requests.push(request);
    answers[Math.min(requests.length, answers.length) - 1](response, request);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  context.after(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return { requests, url: `http://127.0.0.1:${server.address().port}/` };
}

const stream = (response) => response.writeHead(200, { 'content-type': 'text/event-stream' });
/** Reconnects at once; the waits are tested with a fake clock. */
const quick = { setTimeout: (callback, ms) => setTimeout(callback, Math.min(ms, 20)), clearTimeout, now: Date.now, random: Math.random };

test('a connection that breaks within an event is resumed after the last whole one', async (context) => {
  const first = (response) => {
    stream(response).write(hello() + data({ speed: 1 }, T(0), '5f3a9c01-1') + data({ speed: 2 }, T(1), '5f3a9c01-2') + block(null, {}, '5f3a9c01-3').slice(0, -1));
    setTimeout(() => response.destroy(), 50);
  };
  const second = (response) => stream(response).write(hello(undefined, { resumed: true }) + data({ speed: 2 }, T(1)) + data({ speed: 3 }, T(2), '5f3a9c01-3'));
  const server = await serve(context, first, second);
  const seen = [];
  const feed = connect({ url: server.url, tenant: 'demo', devices: ['*'] });
  context.after(() => feed.close());
  feed.addEventListener('data', ({ detail }) => seen.push(detail.values.speed));
  await until('the third value', () => seen.includes(3), () => [seen, feed.status]);
  assert.deepEqual(seen, [1, 2, 3], 'each once, in order');
  assert.deepEqual(server.requests.map(({ url }) => new URL(url, server.url).searchParams.get('lastEventId')), [null, '5f3a9c01-2']);
  assert.equal(feed.lastEventId, '5f3a9c01-3');
  assert.equal(feed.hello.resumed, true);
});

test('values arrive whole over a socket that cuts them anywhere', async (context) => {
  const text = Buffer.from(hello() + Array.from({ length: 40 }, (_, index) => data({ text: `ä€𝄞 ${index}` }, T(index), `5f3a9c01-${index}`)).join(''));
  const server = await serve(context, async (response) => {
    stream(response);
    response.socket.setNoDelay(true);
    for (let at = 0; at < text.length; at += 7) {
      response.write(text.subarray(at, at + 7));
      if (at % 70 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  });
  const seen = [];
  const feed = connect({ url: server.url, tenant: 'demo', devices: ['*'] });
  context.after(() => feed.close());
  feed.addEventListener('data', ({ detail }) => seen.push(detail.values.text));
  await until('40 values', () => seen.length >= 40, () => [seen.length, feed.status]);
  assert.deepEqual(seen, Array.from({ length: 40 }, (_, index) => `ä€𝄞 ${index}`));
  assert.equal(feed.stats.invalid, 0);
});

test('a refused feed connects with a new token', async (context) => {
  const server = await serve(context, (response, request) => {
    if (request.headers.authorization !== 'Bearer right') {
      response.writeHead(401, { 'content-type': 'application/json' }).end(JSON.stringify({ error: { code: 'Unauthorized', message: 'a token is needed' } }));
    } else stream(response).write(hello());
  });
  const feed = connect({ url: server.url, tenant: 'demo', devices: ['*'], token: 'wrong' });
  context.after(() => feed.close());
  await until('the refusal', () => feed.state === 'refused', () => feed.status);
  assert.deepEqual([feed.status.reason, feed.status.message], ['Unauthorized', 'a token is needed']);
  feed.reconnect({ token: 'right' });
  await until('live', () => feed.state === 'live', () => feed.status);
});

test('a server that is away comes back', async (context) => {
  const mock = await startMock();
  context.after(() => mock.stop());
  const feed = connect({ url: mock.url, tenant: 'demo', devices: ['*'], timers: quick });
  context.after(() => feed.close());
  await until('values', () => feed.stats.events > 20, () => feed.status);
  assert.equal(feed.devices.size, 5);
  await mock.control({ away: true });
  await until('three failures', () => feed.status.attempt >= 3, () => feed.status);
  assert.deepEqual([feed.state, feed.status.reason], ['reconnecting', 'Unreachable']);
  const before = feed.stats.events;
  await mock.control({ away: false });
  await until('live again', () => feed.state === 'live' && feed.stats.events > before + 20, () => feed.status);
  assert.equal(feed.stats.invalid, 0);
});

test('closing ends the connection at the server', async (context) => {
  const mock = await startMock();
  context.after(() => mock.stop());
  const feed = connect({ url: mock.url, tenant: 'demo', devices: ['*'] });
  context.after(() => feed.close());
  await until('live', () => mock.clients.size === 1 && feed.state === 'live', () => feed.status);
  feed.close();
  await until('the connection to end', () => mock.clients.size === 0, () => mock.clients.size);
});
