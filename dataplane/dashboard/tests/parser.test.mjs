import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SseParser } from '../flutecast.js';
import { seeded } from './mock-server.mjs';

/** Returns the events that a parser makes of chunks. */
function parse(...chunks) {
  const events = [];
  const parser = new SseParser((event) => events.push(event));
  for (const chunk of chunks) parser.push(typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk);
  return { events, lastEventId: parser.lastEventId, retry: parser.retry };
}

const message = (data, id = null, type = 'message') => ({ type, data, id });

const TABLE = [
  ['one event', 'data: a\n\n', [message('a')]],
  ['only one blank after the colon goes', 'data:  a\n\n', [message(' a')]],
  ['no blank after the colon', 'data:a\n\n', [message('a')]],
  ['lines join with LF', 'data: a\ndata: b\ndata\ndata: c\n\n', [message('a\nb\n\nc')]],
  ['CR ends a line', 'data: a\rdata: b\r\r', [message('a\nb')]],
  ['CRLF ends a line', 'data: a\r\ndata: b\r\n\r\n', [message('a\nb')]],
  ['all line ends mixed', 'data: a\rdata: b\ndata: c\r\n\rdata: d\n\r\n', [message('a\nb\nc'), message('d')]],
  ['a BOM goes', '\ufeffdata: a\n\n', [message('a')]],
  ['only the first BOM goes', '\ufeff\ufeffdata: a\n\ndata: b\n\n', [message('b')]],
  ['comments', ': hello\n:\ndata: a\n: in between\n\n', [message('a')]],
  ['a type', 'event: gap\ndata: a\n\n', [message('a', null, 'gap')]],
  ['the last type counts, and for one event only', 'event: a\nevent: b\ndata: 1\n\ndata: 2\n\n', [message('1', null, 'b'), message('2')]],
  ['an empty type is none', 'event: a\nevent:\ndata: 1\n\n', [message('1')]],
  ['a type without data is no event', 'event: a\n\ndata: 1\n\n', [message('1')]],
  ['empty data is an event', 'data\n\ndata:\n\n', [message(''), message('')]],
  ['unknown fields', 'colour: red\ndata: a\nDATA: b\n data: c\n\n', [message('a')]],
  ['a colon in the value', 'data: {"a":1}\n\n', [message('{"a":1}')]],
  ['an unfinished event is none', 'data: a\n\ndata: b\n', [message('a')]],
  ['an id', 'id: 5\ndata: a\n\ndata: b\n\n', [message('a', '5'), message('b')], { lastEventId: '5' }],
  ['an id alone', 'id: 5\ndata: a\n\nid: 6\n\n', [message('a', '5')], { lastEventId: '6' }],
  ['an empty id takes it back', 'id: 5\ndata: a\n\nid\ndata: b\n\n', [message('a', '5'), message('b', '')], { lastEventId: '' }],
  ['an id with NULL is none', 'id: 5\n\nid: 6\u00007\ndata: a\n\n', [message('a')], { lastEventId: '5' }],
  ['an id of an unfinished block does not count', 'id: 5\ndata: a\n\nid: 6\ndata: b\n', [message('a', '5')], { lastEventId: '5' }],
  ['retry', 'retry: 2350\n\n', [], { retry: 2350 }],
  ['retry of digits only', 'retry: 1000\nretry: 2s\nretry: -1\nretry: 1.5\nretry:\nretry: ٣\n\n', [], { retry: 1000 }],
  ['characters of all widths', 'data: ä€𝄞µ°\n\n', [message('ä€𝄞µ°')]],
];

for (const [name, text, events, { lastEventId = '', retry = null } = {}] of TABLE) {
  test(`the parser: ${name}`, () => assert.deepEqual(parse(text), { events, lastEventId, retry }));
}

test('the parser: bytes that are not UTF-8 become U+FFFD, and the rest is kept', () => {
  const bytes = new Uint8Array([...new TextEncoder().encode('data: '), 0xff, 0xc3, ...new TextEncoder().encode('\n\ndata: b\n\n')]);
  assert.deepEqual(parse(bytes).events, [message('\ufffd\ufffd'), message('b')]);
});

test('the parser: a CR at the end of a chunk ends its line at once, and a LF after it adds none', () => {
  const events = [];
  const parser = new SseParser((event) => events.push(event.data));
  const push = (text) => parser.push(new TextEncoder().encode(text));
  push('data: a\r');
  push('\r');
  assert.deepEqual(events, ['a']);
  push('\n');
  push('data: b\r');
  push('\n');
  assert.deepEqual(events, ['a']);
  push('\n');
  assert.deepEqual(events, ['a', 'b']);
});

test('the parser: wherever the chunks are cut, the events are the same', () => {
  const random = seeded(20_261_122);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const ends = ['\n', '\r', '\r\n'];
  const lines = ['data: a', 'data: €𝄞', 'data', 'data:  b:c', 'id: 5f3a9c01-7', 'id', 'id: x\0y', 'event: gap', 'retry: 12', 'retry: x', ': comment', '', '', '', 'other: 1'];
  for (let round = 0; round < 400; round += 1) {
    let text = random() < 0.2 ? '\ufeff' : '';
    const count = 1 + Math.floor(random() * 30);
    for (let line = 0; line < count; line += 1) text += pick(lines) + pick(ends);
    const bytes = new TextEncoder().encode(text);
    const chunks = [];
    for (let at = 0; at < bytes.length;) {
      const size = Math.floor(random() * pick([2, 4, 60]));
      chunks.push(bytes.slice(at, at + size));
      at += size;
    }
    assert.deepEqual(parse(...chunks), parse(bytes), JSON.stringify(text));
  }
});

test('the parser: an event without end is refused before it fills the memory', () => {
  const parser = new SseParser(() => {});
  const chunk = new Uint8Array(1024 * 1024).fill(0x61);
  assert.throws(() => {
    for (let count = 0; count < 40; count += 1) parser.push(chunk);
  }, RangeError);
});
