/** The order of events: that of the stream, by `seq` within what follows a `hello`; never by time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { block, data, device, hello, helloBefore, numbered, start } from './fakes.mjs';

const T = (seconds) => new Date(Date.parse('2026-11-22T10:00:00Z') + seconds * 1_000).toISOString();
const FAR = '2036-01-01T00:00:00.000Z';
const speeds = (of) => of('data').map(({ values }) => values.speed);
const ons = (of) => of('data').filter(({ channel }) => channel === 'power').map(({ values }) => values.on);
const speed = (feed, code = 'CORR-01') => feed.devices.get(code).channels.get('telemetry').values.speed;
const power = (n, time, seq, more = {}) => numbered({ on: n }, time, seq, { channel: 'power', ...more });

/** A feed that is live after `first`. */
async function live(first, options = {}) {
  const all = await start(options);
  await all.server.stream(first);
  return all;
}

/** Ends the connection, waits, and answers the next request with `text`. */
async function reconnect({ server, timers }, text, waitMs = 1_000) {
  await server.end();
  await timers.advance(waitMs);
  await server.stream(text);
}

// [what, [seq, time, speed] before, the same after, what is shown]
const WITHIN_A_HELLO = [
  ['a higher sequence is newer', [5, T(0), 1], [6, T(1), 2], 2],
  ['at equal times the higher sequence is newer', [5, T(0), 1], [6, T(0), 2], 2],
  ['a higher sequence with an older time is newer', [5, T(0), 1], [6, T(-3_600), 2], 2],
  ['after a time of 2036, the next one is newer', [5, FAR, 1], [6, T(0), 2], 2],
  ['sequences are numbers, not text', [9, T(0), 1], [10, T(1), 2], 2],
  ['a lower sequence is older, whatever its time', [5, T(0), 1], [4, T(1), 2], 1],
  ['the same sequence with the same values is the known event', [5, T(0), 1], [5, T(0), 1], 1],
  ['the same sequence with other values is that of an edited format', [5, T(0), 1], [5, T(0), 2], 2],
];
for (const [what, [seq, time, value], [nextSeq, nextTime, next], shown] of WITHIN_A_HELLO) {
  test(`order: ${what}`, async () => {
    const { feed, server, of } = await live(hello() + numbered({ speed: value }, time, seq));
    await server.write(numbered({ speed: next }, nextTime, nextSeq));
    assert.equal(speed(feed), shown);
    assert.equal(of('data').length, shown === next && next !== value ? 2 : 1);
    assert.equal(feed.stats.dropped, 2 - of('data').length);
    feed.close();
  });
}

test('order: all events of an Every channel arrive, also late ones, with and without ids', async () => {
  const { feed, of } = await live(hello() + power(1, T(0), 5) + power(2, T(-1), 6, { late: true }) + power(3, FAR, 7)
    + data({ on: 4 }, T(-3_600), 'e1-8', { channel: 'power', seq: 8, late: true }) + data({ on: 5 }, T(1), 'e1-9', { channel: 'power', seq: 9 }));
  assert.deepEqual(ons(of), [1, 2, 3, 4, 5]);
  assert.deepEqual(of('data').map(({ seq, late, id }) => [seq, late, id]), [[5, false, null], [6, true, null], [7, false, null], [8, true, 'e1-8'], [9, false, 'e1-9']]);
  feed.close();
});

test('order: equal events of an Every channel with their own sequences are events of their own', async () => {
  const { feed, of } = await live(hello() + power(1, T(0), 5) + power(1, T(0), 6) + power(1, T(0), 7));
  assert.deepEqual(of('data').map(({ seq }) => seq), [5, 6, 7]);
  feed.close();
});

test('order: a replay that broke off and comes again is delivered once, and goes on in order', async () => {
  const all = await live(hello() + power(0, T(0), 1) + 'id: e1-1\n\n');
  await reconnect(all, hello() + power(1, T(-9), 2) + power(2, T(-8), 3));
  await reconnect(all, hello() + power(1, T(-9), 2) + power(2, T(-8), 3) + power(3, T(-10), 4) + 'id: e1-4\n\n', 60_000);
  assert.deepEqual(ons(all.of), [0, 1, 2, 3]);
  all.feed.close();
});

test('order: the snapshot of a pod that is a moment behind moves no value back', async () => {
  const all = await live(hello() + numbered({ speed: 2 }, T(0), 6));
  await reconnect(all, hello() + numbered({ speed: 1 }, T(1), 5));
  assert.equal(speed(all.feed), 2);
  await all.server.write(numbered({ speed: 2 }, T(0), 6) + numbered({ speed: 3 }, T(2), 7));
  assert.deepEqual(speeds(all.of), [2, 3]);
  all.feed.close();
});

test('order: a broker that lost its newest messages while the page was away freezes nothing', async () => {
  const all = await live(hello() + numbered({ speed: 2 }, T(0), 600) + power(1, T(0), 601) + 'id: e1-601\n\n');
  await reconnect(all, hello() + numbered({ speed: 1 }, T(-60), 500)
    + block('gap', { device: 'CORR-01', channel: 'power', reason: 'Retention', lost: null }) + power(0, T(-60), 501), 10_000);
  await all.server.write(numbered({ speed: 3 }, T(11), 502) + power(2, T(11), 503));
  assert.deepEqual(speeds(all.of).filter((one) => one !== undefined), [2, 1, 3]);
  assert.deepEqual(ons(all.of), [1, 0, 2]);
  all.feed.close();
});

test('order: another epoch, or none, replaces whatever was known', async () => {
  for (const epoch of ['e2', null]) {
    const all = await live(hello() + numbered({ speed: 2 }, T(5), 600));
    await reconnect(all, hello(undefined, { epoch }) + numbered({ speed: 1 }, T(0), 1));
    assert.equal(speed(all.feed), 1);
    await all.server.write(numbered({ speed: 9 }, T(0), 0));
    assert.equal(speed(all.feed), 1, 'after it, the sequence counts again');
    await reconnect(all, hello() + numbered({ speed: 3 }, T(0), 1));
    assert.equal(speed(all.feed), 3);
    all.feed.close();
  }
});

test('order: a pod that turned the page away without knowing the epoch changes nothing', async () => {
  const all = await live(hello() + numbered({ speed: 2 }, T(5), 6) + power(1, T(5), 5));
  await reconnect(all, hello([], { epoch: null }) + block('bye', { reason: 'Full', retryMs: 200 }));
  await all.timers.advance(200);
  await all.server.stream(hello() + numbered({ speed: 1 }, T(0), 4) + power(1, T(5), 5));
  assert.equal(speed(all.feed), 2);
  assert.deepEqual(ons(all.of), [1], 'nor is the known event of an Every channel told twice');
  all.feed.close();
});

test('order: a second hello on a connection starts the order anew; what is known is not told twice', async () => {
  for (const epoch of ['e1', 'e2']) {
    const { feed, server, of } = await live(hello() + numbered({ speed: 2 }, T(5), 600) + power(1, T(0), 7));
    await server.write(hello(undefined, { epoch }) + numbered({ speed: 1 }, T(0), 3) + power(1, T(0), 7) + numbered({ speed: 4 }, T(0), 8));
    assert.deepEqual([speeds(of).filter((one) => one !== undefined), ons(of)], [[2, 1, 4], [1]]);
    assert.equal(feed.state, 'live');
    feed.close();
  }
});

test('order: a second hello keeps the refusals', async () => {
  const { feed, server } = await live(hello() + block('refused', { device: 'CORR-99', reason: 'UnknownDevice' }));
  await server.write(hello());
  assert.equal(feed.refusals.size, 1);
  feed.close();
});

test('order: a device that is described again may go back to an older message', async () => {
  const { feed, server, of } = await live(hello() + numbered({ speed: -1 }, T(1), 6) + power(1, T(0), 5));
  // With the edited format, message 6 is filtered.
  await server.write(block('devices', { added: [device()], removed: [] }) + numbered({ speed: 182.4 }, T(0), 4) + power(1, T(0), 5));
  assert.equal(speed(feed), 182.4);
  assert.deepEqual(ons(of), [1]);
  await server.write(numbered({ speed: 7 }, T(0), 3));
  assert.equal(speed(feed), 182.4, 'only the first one may');
  feed.close();
});

test('order: channels and devices have their own', async () => {
  const { feed } = await live(hello([device('A-1'), device('B-1')]) + numbered({ speed: 1 }, T(5), 50, { code: 'A-1' })
    + numbered({ speed: 2 }, T(0), 49, { code: 'B-1' }) + power(true, T(1), 3, { code: 'A-1' }));
  assert.deepEqual([speed(feed, 'A-1'), speed(feed, 'B-1')], [1, 2]);
  assert.deepEqual(feed.devices.get('A-1').channels.get('power').values, { on: true });
  feed.close();
});

test('the version before: within a connection, what comes later is newer', async () => {
  const { feed, of } = await live(helloBefore() + data({ speed: 1 }, FAR) + data({ speed: 2 }, T(0)) + data({ speed: 2 }, T(0))
    + data({ speed: 3 }, T(-60), 'e1-7') + data({ on: 1 }, T(0), null, { channel: 'power' }) + data({ on: 2 }, T(-1), null, { channel: 'power' }));
  assert.deepEqual(speeds(of).slice(0, 4), [1, 2, 2, 3]);
  assert.deepEqual(ons(of), [1, 2]);
  assert.deepEqual(of('data').map(({ seq, bad, at, late }) => [seq, bad, at, late])[0], [null, {}, {}, false]);
  assert.equal(feed.stats.dropped, 0);
  feed.close();
});

test('the version before: a snapshot after a reconnect replaces what is known, and tells nothing twice', async () => {
  const all = await live(helloBefore() + data({ speed: 2 }, FAR) + data({ on: 1 }, T(0), 'e1-4', { channel: 'power' }));
  await reconnect(all, helloBefore() + data({ speed: 1 }, T(1)) + data({ on: 1 }, T(0), undefined, { channel: 'power' }));
  assert.equal(speed(all.feed), 1);
  assert.deepEqual(ons(all.of), [1]);
  all.feed.close();
});

test('versions that meet: between pods of both versions each connection counts', async () => {
  const all = await live(hello() + numbered({ speed: 2 }, FAR, 6));
  await reconnect(all, helloBefore() + data({ speed: 3 }, T(0)) + data({ speed: 4 }, T(-1)));
  assert.equal(speed(all.feed), 4);
  await reconnect(all, hello() + numbered({ speed: 5 }, T(-2), 1));
  assert.deepEqual(speeds(all.of), [2, 3, 4, 5]);
  all.feed.close();
});

test('a value of a clock that is ahead ages from when it came', async () => {
  const { feed, timers, server } = await live(hello() + numbered({ speed: 1 }, FAR, 1));
  const channel = feed.devices.get('CORR-01').channels.get('telemetry');
  await timers.advance(7_000);
  assert.equal(feed.age(channel), 7_000);
  await server.end();
  await timers.advance(4_000);
  assert.equal(channel.stale, true, 'without a connection it becomes stale like any other');
  feed.close();
});

test('bad, at and late come with the values, and go with the next ones', async () => {
  const { feed, server, of } = await live(hello() + numbered({ state: null, hum: 3 }, T(0), 1, { bad: { state: '7' }, at: { hum: T(-60) }, late: true }));
  const channel = feed.devices.get('CORR-01').channels.get('telemetry');
  assert.deepEqual([channel.values, channel.bad, channel.at, channel.late, channel.seq], [{ state: null, hum: 3 }, { state: '7' }, { hum: T(-60) }, true, 1]);
  assert.deepEqual(of('data')[0], {
    device: 'CORR-01', channel: 'telemetry', time: T(0), timeMs: Date.parse(T(0)), values: { state: null, hum: 3 }, seq: 1,
    bad: { state: '7' }, at: { hum: T(-60) }, late: true, id: null,
  });
  await server.write(numbered({ state: null, hum: 3 }, T(0), 1, { bad: { state: '8' } }));
  assert.deepEqual(channel.bad, { state: '8' }, 'a difference in bad alone is one');
  await server.write(numbered({ state: 'running' }, T(0), 2));
  assert.deepEqual([channel.bad, channel.at, channel.late, channel.seq], [{}, {}, false, 2]);
  feed.close();
});

const problem = (reason, more = {}) => ({ reason, field: null, place: '/ts', found: '1', message: `${reason}!`, count: 1, since: T(0), last: T(0), ...more });
const told = (of) => of('problem').map((event) => [event.channel, event.problem?.reason ?? null]);

test('problems are asked for, kept by channel, told, and end', async () => {
  const all = await live(hello() + block('problem', { device: 'CORR-01', channel: 'telemetry', problem: problem('TooOld') }), { problems: true });
  const channel = all.feed.devices.get('CORR-01').channels.get('telemetry');
  assert.equal(all.server.last.url.searchParams.get('problems'), 'true');
  assert.equal(channel.problem.message, 'TooOld!');
  assert.deepEqual(all.of('change').pop(), { device: 'CORR-01', channel: 'telemetry' });
  await all.server.write(block('problem', { device: 'CORR-01', channel: 'telemetry', problem: null }) + block('problem', { device: 'X', channel: 'y', problem: null }));
  assert.equal(channel.problem, null);
  assert.deepEqual(told(all.of), [['telemetry', 'TooOld'], ['telemetry', null]]);
  all.feed.close();
});

test('problems are asked for in the body of a long list, and only on demand', async () => {
  const devices = Array.from({ length: 300 }, (_, n) => `CORR-${n}`);
  for (const problems of [true, undefined]) {
    const { feed, server } = await start({ devices, problems });
    assert.equal(JSON.parse(server.last.init.body).problems, problems);
    feed.close();
    const short = await start({ problems });
    assert.equal(short.server.last.url.searchParams.get('problems'), problems ? 'true' : null);
    short.feed.close();
  }
});

test('what a new connection doesn’t repeat of staleness and problems has ended once an id shows that it said everything', async () => {
  const ends = ['id: e1-9\n\n', block('ping', { time: T(1) }, 'e1-1'), data({ on: 1 }, T(0), 'e1-9', { channel: 'power', seq: 9 })];
  for (const text of ends) {
    const said = (type, channel, more) => block(type, { device: 'CORR-01', channel, ...more });
    const all = await live(hello() + numbered({ speed: 1 }, T(0), 1) + said('stale', 'telemetry', { since: T(0), staleAfterMs: 1 })
      + said('problem', 'telemetry', { problem: problem('TooOld') }) + said('problem', 'power', { problem: problem('Malformed') }) + 'id: e1-1\n\n');
    const { telemetry, power: other } = Object.fromEntries(all.feed.devices.get('CORR-01').channels);
    await reconnect(all, hello() + numbered({ speed: 1 }, T(0), 1) + said('problem', 'power', { problem: problem('Malformed', { count: 2 }) }));
    assert.deepEqual([telemetry.stale, telemetry.problem?.reason, other.problem.count], [true, 'TooOld', 2], 'nothing flickers');
    await all.server.write(text);
    assert.deepEqual([telemetry.stale, telemetry.problem, other.problem.count], [false, null, 2]);
    assert.deepEqual(all.of('fresh').length, 1);
    all.feed.close();
  }
});
