import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digitGroups, gapText, label, lateText, powerOf, problemText, reasonText, span, timeText, tone, valueText } from '../format.js';
import { AlarmList } from '../log.js';
import { History, scaleOf, WINDOW_MS } from '../plot.js';

/** @param {string} name @param {Function} f @param {[any[], any][]} table */
function table(name, f, rows) {
  for (const [given, expected] of rows) test(`${name}: ${JSON.stringify(given)}`, () => assert.deepEqual(f(...given), expected));
}

table('a value', valueText, [
  [[182.4, { decimals: 1 }], '182.4'], [[182, { decimals: 1 }], '182.0'], [[-0.04, { decimals: 1 }], '0.0'], [[1234567, { decimals: 0 }], '1234567'],
  [[7], '7'], [[1 / 3], '0.33333'], [[1e21], '1e+21'], [['running'], 'running'], [[true], 'yes'], [[false], 'no'], [[null], '–'], [[undefined], '–'], [[''], ''],
]);

table('digits', digitGroups, [
  [['1234'], ['1234']], [['12345'], ['12', '345']], [['-1234567.25'], ['-1', '234', '567.25']], [['A-12345'], ['A-12345']], [['1e+21'], ['1e+21']], [['–'], ['–']],
]);

test('digits in groups are the same text', () => {
  for (const text of ['12345', '-123456.7', '999999999', 'x']) assert.equal(digitGroups(text).join(''), text);
});

table('a field’s name', label, [
  [['speed'], 'Speed'], [['steamPreheater1'], 'Steam preheater 1'], [['tempDoubleBacker'], 'Temp double backer'], [['pile_count'], 'Pile count'], [['gw-line.2'], 'Gw line 2'], [['x'], 'X'], [['onTime'], 'On time'], [['CO2'], 'CO 2'],
]);

table('a span', span, [[[0], '0 s'], [[-5], '0 s'], [[12_900], '12 s'], [[119_999], '119 s'], [[120_000], '2 min'], [[7_200_000], '2 h'], [[172_800_000], '2 d']]);

test('a time of another day names the day', () => {
  const now = new Date(2026, 10, 22, 10, 0, 5).getTime();
  assert.equal(timeText(now, now), '10:00:05');
  assert.equal(timeText(now - 86_400_000, now), '21 Nov 10:00:05');
});

table('a tone', tone, [[['running'], 'good'], [['Stopped'], 'idle'], [['threading'], 'warn'], [['critical'], 'bad'], [['purple'], 'info'], [[null], 'info'], [['toString'], 'info'], [[3], 'info']]);

table('power', powerOf, [
  [[null], 'unknown'], [[{ on: true }], 'on'], [[{ on: false }], 'off'], [[{ on: null }], 'unknown'], [[{ power: 'on' }], 'on'], [[{ state: 'OFF' }], 'off'], [[{ whatever: 1 }], 'on'], [[{}], 'unknown'], [[{ state: 'limp' }], 'unknown'],
]);

table('a gap', gapText, [
  [[{ device: 'CORR-01', channel: 'alarms', reason: 'Retention', lost: null }], 'CORR-01 alarms: events may be missing, because the stream no longer holds them'],
  [[{ device: 'CORR-01', channel: 'alarms', reason: 'SlowClient', lost: 1 }], 'CORR-01 alarms: 1 event is missing, because this page was too slow'],
  [[{ reason: 'Other', lost: 4 }], '4 events are missing, because Other'],
]);

table('a reason', reasonText, [[['Full', 'x'], 'The server is full'], [['New', 'in words'], 'in words'], [['New', null], 'New'], [[null], 'Unknown reason']]);

test('a history keeps the extremes and the last of each half second, and forgets', () => {
  const history = new History();
  const now = 1_795_341_600_000;
  assert.equal(history.range(now), null);
  history.add(now, 5);
  history.add(now + 100, 9);
  history.add(now + 200, 7);
  history.add(now + 600, 1);
  assert.deepEqual([...history.points(now + 700)], [{ time: now, min: 5, max: 9, last: 7 }, { time: now + 500, min: 1, max: 1, last: 1 }]);
  assert.deepEqual(history.range(now + 700), { min: 1, max: 9 });
  assert.equal(history.range(now + WINDOW_MS + 2_000), null);
  history.add(now + WINDOW_MS + 500, 3); // In the place of the first in the ring.
  history.add(now, 100); // Too late: it must not damage the newer point.
  assert.deepEqual(history.range(now + WINDOW_MS + 500), { min: 1, max: 3 });
});

test('a history of an hour takes no more than its window', () => {
  const history = new History();
  for (let time = 0; time < 3_600_000; time += 100) history.add(time, time);
  const points = [...history.points(3_600_000)];
  assert.ok(points.length <= WINDOW_MS / 500 + 1, `${points.length}`);
  assert.deepEqual(points[points.length - 1], { time: 3_599_500, min: 3_599_500, max: 3_599_900, last: 3_599_900 });
});

test('a scale holds all values and does not blow noise up', () => {
  const wide = scaleOf({ min: 10, max: 20 }, 1);
  assert.ok(wide.low < 10 && wide.high > 20);
  const flat = scaleOf({ min: 200, max: 200 }, 1);
  assert.ok(flat.high - flat.low >= 2, JSON.stringify(flat));
  const zero = scaleOf({ min: 0, max: 0 }, 0);
  assert.ok(zero.high > 0 && zero.low < 0);
});

table('a problem', problemText, [[['TooOld', null], 'Too old'], [['BadField', 'doorState'], 'Value not readable: Door state'], [['New', null], 'New'], [['NotRead', undefined], 'Not looked up']]);

table('a time', lateText, [[['10:00:05', false], '10:00:05'], [['10:00:05', true], '10:00:05 · late']]);

const alarm = (device, code, severity, timeMs, text = `text ${code}`, more = {}) =>
  ({ device, channel: 'alarms', time: '', timeMs, seq: null, bad: {}, at: {}, late: false, id: null, values: { code, severity, text }, ...more });

test('alarms: active ones first, the worst on top; cleared ones keep when and what', () => {
  const list = new AlarmList();
  list.add(alarm('A', 1, 'warning', 1));
  list.add(alarm('B', 2, 'critical', 2));
  list.add(alarm('A', 3, 'warning', 3));
  list.add(alarm('C', 9, 'critical', 4));
  list.add(alarm('C', 9, 'cleared', 5, undefined));
  assert.deepEqual(list.sorted().map(({ device, code }) => `${device}${code}`), ['B2', 'A3', 'A1', 'C9']);
  assert.equal(list.active, 3);
  assert.deepEqual(list.sorted()[3], { key: 'C 9', device: 'C', code: '9', severity: 'critical', text: 'text 9', timeMs: 4, clearedMs: 5, late: false });
  list.add(alarm('C', 9, 'warning', 6));
  assert.equal(list.active, 4, 'an alarm that comes back is active again');
  assert.equal(list.sorted().length, 4);
});

test('alarms: what was cleared before the page knew of it is not listed', () => {
  const list = new AlarmList();
  assert.equal(list.add(alarm('A', 0, 'cleared', 1, 'No alarm')), false);
  assert.deepEqual([list.sorted(), list.active], [[], 0]);
  assert.equal(list.add(alarm('A', 5, 'warning', 2)), true);
  assert.equal(list.add(alarm('A', 5, 'cleared', 3)), true);
  assert.equal(list.add(alarm('A', 5, 'cleared', 4)), false);
});

test('alarms: a late one is news, and marked', () => {
  const list = new AlarmList();
  list.add(alarm('A', 1, 'warning', 9));
  assert.equal(list.add(alarm('A', 2, 'warning', 3, 'b', { late: true })), true);
  assert.equal(list.add(alarm('A', 1, 'cleared', 5, 'a', { late: true })), true, 'the stream’s order counts, not the time');
  assert.deepEqual(list.sorted().map(({ code, late, clearedMs }) => [code, late, clearedMs]), [['2', true, null], ['1', true, 5]]);
});

test('alarms: those whose code can’t be read are not taken for one', () => {
  const list = new AlarmList();
  list.add(alarm('A', null, 'warning', 1, 'x', { bad: { code: 'E7' } }));
  list.add(alarm('A', null, null, 2, 'y', { bad: { code: 'E8', severity: '9' } }));
  assert.deepEqual(list.sorted().map(({ code, severity }) => [code, severity]), [['“E7”', 'warning'], ['“E8”', '“9”']]);
});

test('alarms: as many as fit are kept, active ones before cleared ones', () => {
  const list = new AlarmList();
  list.add(alarm('OLD', 1, 'critical', 0));
  for (let code = 0; code < 300; code += 1) {
    list.add(alarm('A', code, 'warning', 1 + code));
    list.add(alarm('A', code, 'cleared', 1 + code));
  }
  assert.equal(list.sorted().length, 100);
  assert.equal(list.sorted()[0].device, 'OLD');
  assert.equal(list.sorted()[1].code, '299');
});
