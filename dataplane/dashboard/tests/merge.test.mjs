import assert from 'node:assert/strict';
import { test } from 'node:test';
import { block, data, device, hello, power, start, telemetry } from './fakes.mjs';

const T = (seconds) => new Date(Date.parse('2026-11-22T10:00:00Z') + seconds * 1_000).toISOString();
const speed = (feed, code = 'CORR-01') => feed.devices.get(code)?.channels.get('telemetry')?.values?.speed;

async function live(text = '', options = {}) {
  const all = await start(options);
  await all.server.stream(hello() + text);
  return all;
}

test('hello describes the devices, data fills them', async () => {
  const { feed, of } = await live(data({ speed: 182.4 }, T(0)));
  const { name, labels, channels } = feed.devices.get('CORR-01');
  assert.deepEqual([name, labels], ['corr-01', { line: 'l1' }]);
  assert.deepEqual(channels.get('telemetry').fields, telemetry.fields);
  assert.equal(channels.get('power').values, null);
  assert.equal(speed(feed), 182.4);
  assert.equal(channels.get('telemetry').timeMs, Date.parse(T(0)));
  assert.deepEqual(of('data').map(({ device: code, channel, values, id }) => [code, channel, values, id]), [['CORR-01', 'telemetry', { speed: 182.4 }, null]]);
  feed.close();
});

test('values are those of one message: what it lacks is not kept from an older one', async () => {
  const { feed } = await live(data({ speed: 1, state: 'running' }, T(0)) + data({ speed: 2 }, T(1)));
  assert.deepEqual(feed.devices.get('CORR-01').channels.get('telemetry').values, { speed: 2 });
  feed.close();
});

test('stale and fresh are kept, and data ends stale', async () => {
  const { feed, server, of } = await live(data({ speed: 1 }, T(0)) + block('stale', { device: 'CORR-01', channel: 'telemetry', since: T(0), staleAfterMs: 10_000 }));
  const channel = feed.devices.get('CORR-01').channels.get('telemetry');
  assert.equal(channel.stale, true);
  await server.write(block('fresh', { device: 'CORR-01', channel: 'telemetry' }));
  assert.equal(channel.stale, false);
  await server.write(block('stale', { device: 'CORR-01', channel: 'telemetry', since: T(0), staleAfterMs: 10_000 }) + data({ speed: 2 }, T(1)));
  assert.equal(channel.stale, false);
  assert.deepEqual([of('stale').length, of('fresh').length], [2, 1]);
  feed.close();
});

test('a channel stays stale across a reconnect until something newer comes', async () => {
  const { feed, server, timers } = await live(data({ speed: 1 }, T(0)) + block('stale', { device: 'CORR-01', channel: 'telemetry', since: T(0), staleAfterMs: 10_000 }));
  await server.end();
  await timers.advance(5_000);
  await server.stream(hello() + data({ speed: 1 }, T(0)));
  assert.equal(feed.state, 'live');
  assert.equal(feed.devices.get('CORR-01').channels.get('telemetry').stale, true);
  await server.write(data({ speed: 2 }, T(4)));
  assert.equal(feed.devices.get('CORR-01').channels.get('telemetry').stale, false);
  feed.close();
});

test('without a connection, values become stale by themselves; those that never do, do not', async () => {
  const { feed, server, timers, of } = await live(data({ speed: 1 }, T(0)) + data({ on: true }, T(0), null, { channel: 'power' }));
  await server.end();
  const { channels } = feed.devices.get('CORR-01');
  await timers.advance(10_000);
  assert.equal(channels.get('telemetry').stale, false);
  await timers.advance(1_000);
  assert.equal(channels.get('telemetry').stale, true);
  assert.equal(channels.get('power').stale, false);
  assert.deepEqual(of('stale'), [{ device: 'CORR-01', channel: 'telemetry', since: T(0), staleAfterMs: 10_000 }]);
  feed.close();
});

test('ages count on the server’s clock', async () => {
  const { feed, server, timers } = await start();
  timers.time += 3_600_000; // This machine is an hour ahead.
  await server.stream(hello() + data({ speed: 1 }, T(0)), { date: new Date(T(2)).toUTCString() });
  const channel = feed.devices.get('CORR-01').channels.get('telemetry');
  assert.ok(Math.abs(feed.age(channel) - 2_000) <= 500, `${feed.age(channel)}`);
  await server.write(block('ping', { time: T(7) }));
  assert.equal(feed.age(channel), 7_000);
  assert.equal(feed.age(undefined), null);
  feed.close();
});

test('devices come and go', async () => {
  const { feed, server, of } = await live(data({ speed: 1 }, T(0)));
  await server.write(block('devices', { added: [device('SLIT-01')], removed: ['CORR-01'] }));
  assert.deepEqual([...feed.devices.keys()], ['SLIT-01']);
  assert.equal(of('devices').length, 1);
  assert.deepEqual(of('change').slice(-2), [{ device: 'SLIT-01' }, { device: 'CORR-01' }]);
  await server.write(data({ speed: 1 }, T(1)));
  assert.equal(feed.stats.invalid, 1, 'data of a device that is gone is not taken');
  feed.close();
});

test('hello replaces the devices, and keeps the values of those that stay', async () => {
  const { feed, server, timers } = await live(data({ speed: 1 }, T(0)));
  await server.end();
  await timers.advance(2_000);
  const renamed = { ...device('CORR-01', [{ ...telemetry, staleAfterMs: null }]), name: 'new name' };
  await server.stream(hello([renamed, device('DIE-01')]));
  assert.deepEqual([...feed.devices.keys()], ['CORR-01', 'DIE-01']);
  assert.equal(feed.devices.get('CORR-01').name, 'new name');
  assert.deepEqual([...feed.devices.get('CORR-01').channels.keys()], ['telemetry']);
  assert.equal(speed(feed), 1);
  feed.close();
});

test('a server that refuses the client removes no value from the page', async () => {
  const { feed, server, timers } = await live(data({ speed: 1 }, T(0)) + data({ on: true }, T(0), 'e1-5', { channel: 'power' }));
  await server.end();
  for (const text of [hello([]) + block('bye', { reason: 'Full', retryMs: 2_000 }), hello([]) + block('refused', { reason: 'Starting' }) + block('ping', { time: T(1) })]) {
    await timers.advance(3_000);
    await server.stream(text);
    assert.deepEqual(feed.devices.get('CORR-01').channels.get('power').values, { on: true });
    assert.equal(speed(feed), 1);
  }
  // A client that resumes doesn't get its values again.
  await server.write(block('devices', { added: [device()], removed: [] }) + 'id: e1-6\n\n');
  assert.deepEqual(feed.devices.get('CORR-01').channels.get('power').values, { on: true });
  feed.close();
});

test('devices that are no longer served are removed at any sign that the server serves', async () => {
  const shows = ['id: e1-6\n\n', block('ping', { time: T(1) }, 'e1-6'), block('refused', { device: 'CORR-01', reason: 'UnknownDevice' }), block('devices', { added: [device('DIE-01')], removed: [] })];
  for (const text of shows) {
    const { feed, server, timers } = await live(data({ speed: 1 }, T(0)));
    await server.end();
    await timers.advance(2_000);
    await server.stream(hello([]));
    assert.equal(speed(feed), 1, 'it isn\'t known yet');
    await server.write(text);
    assert.equal(feed.devices.has('CORR-01'), false, text);
    feed.close();
  }
});

test('a refused device is remembered until it is served', async () => {
  const { feed, server, of } = await live(block('refused', { device: 'CORR-99', reason: 'UnknownDevice', message: 'no such device' }));
  assert.equal(feed.refusals.get('CORR-99').reason, 'UnknownDevice');
  assert.equal(feed.state, 'live');
  assert.equal(of('refused').length, 1);
  await server.write(block('devices', { added: [device('CORR-99')], removed: [] }));
  assert.equal(feed.refusals.size, 0);
  feed.close();
});

test('a refusal of the whole subscription is waiting, until the server serves again', async () => {
  const { feed, server } = await live(block('refused', { reason: 'BrokerAway', message: 'the broker is away' }));
  assert.deepEqual([feed.state, feed.status.reason], ['waiting', 'BrokerAway']);
  await server.write(block('ping', { time: T(1) }));
  assert.equal(feed.state, 'waiting');
  await server.write(data({ speed: 1 }, T(2)));
  assert.equal(feed.state, 'live');
  feed.close();
});

test('a new id ends the waiting, also without any data', async () => {
  const { feed, server } = await live(block('refused', { reason: 'BrokerAway' }));
  assert.equal(feed.state, 'waiting');
  await server.write('id: 5f3a9c01-9\n\n');
  assert.equal(feed.state, 'live');
  feed.close();
});

test('gaps are reported and counted', async () => {
  const { feed, of } = await live(block('gap', { device: 'CORR-01', channel: 'power', reason: 'Retention', lost: null }));
  assert.deepEqual(of('gap'), [{ device: 'CORR-01', channel: 'power', reason: 'Retention', lost: null }]);
  assert.equal(feed.stats.gaps, 1);
  feed.close();
});

test('malformed events are counted and change nothing', async () => {
  const broken = ['data: {\n\n', 'data: null\n\n', 'data: 7\n\n', block(null, { device: 'CORR-01' }), block(null, { device: 'CORR-01', channel: 'telemetry', time: 'soon', values: {} }),
    block(null, { device: 'CORR-01', channel: 'telemetry', time: T(0), values: null }), block(null, { device: '__proto__', channel: 'telemetry', time: T(0), values: {} })];
  const { feed, of } = await live(broken.join('') + block('news', { of: 'a later version' }) + data({ speed: 3 }, T(0)));
  assert.equal(feed.stats.invalid, broken.length);
  assert.equal(feed.state, 'live');
  assert.equal(of('data').length, 1);
  assert.equal(speed(feed), 3);
  feed.close();
});

test('a listener that closes the feed gets no more events of the same chunk', async () => {
  const { feed, server, of } = await start();
  feed.addEventListener('data', () => feed.close());
  await server.stream(hello() + data({ speed: 1 }, T(0)) + data({ speed: 2 }, T(1)));
  assert.equal(of('data').length, 1);
  assert.equal(speed(feed), 1);
});

test('a channel has no age before its first value', async () => {
  const { feed } = await live();
  assert.equal(feed.age(feed.devices.get('CORR-01').channels.get('power')), null);
  assert.equal(power.staleAfterMs, null);
  feed.close();
});
