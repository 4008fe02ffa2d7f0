/** The page in headless Chromium with simulated values. Needs Debian's `chromium`, or the one that CHROMIUM names. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openBrowser } from './chromium.mjs';
import { startMock } from './mock-server.mjs';

/** How long a page may take on a busy machine. */
const PATIENCE_MS = 20_000;
/** @type {Awaited<ReturnType<typeof openBrowser>>} */
let browser;
before(async () => { browser = await openBrowser(); });
after(() => browser.close());

const live = 'document.body?.dataset.connection === "live" && document.querySelectorAll("[data-device]").length > 0';
const card = (code) => `document.querySelector('[data-device="${code}"]')`;
const value = (code, field) => `${card(code)}?.querySelector('[data-field="${field}"]')?.textContent`;

async function open(context, { mock: mockOptions = {}, path = '', ...pageOptions } = {}) {
  const mock = await startMock(mockOptions);
  context.after(() => mock.stop());
  const page = await browser.page({ width: 1600, height: 1000, ...pageOptions });
  await page.open(mock.url + path);
  return { mock, page };
}

test('it shows the line live, in the order of the line, and nothing is reported to the console', async (context) => {
  const { mock, page } = await open(context);
  await page.until(live, PATIENCE_MS);
  assert.deepEqual(await page.evaluate('[...document.querySelectorAll("[data-device]")].map((node) => node.dataset.device)'), ['CORR-01', 'SLIT-01', 'FLEX-01', 'DIE-01', 'STACK-01']);
  await page.until(`/^\\d+\\.\\d$/.test(${value('CORR-01', 'speed')})`, PATIENCE_MS);
  const first = await page.evaluate(value('CORR-01', 'speed'));
  await page.until(`${value('CORR-01', 'speed')} !== '${first}'`, PATIENCE_MS);
  assert.equal(await page.evaluate(`${card('CORR-01')}.querySelector('[data-field="speed"]').parentElement.querySelector('.unit').textContent`), 'm/min');
  await page.until(`${value('CORR-01', 'state')} === 'running'`, PATIENCE_MS);
  await page.until(`/^\\d{5}$/.test(${value('FLEX-01', 'good')})`, PATIENCE_MS);
  await page.until(`${card('DIE-01')}.dataset.power === 'on'`, PATIENCE_MS);
  await page.until('document.getElementById("server").textContent === "flutecast-mock" && Number(document.getElementById("rate").textContent) > 5', PATIENCE_MS);
  await page.until(`[...${card('CORR-01')}.querySelectorAll('canvas')].every((canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte !== 0))`, PATIENCE_MS);
  assert.deepEqual(page.problems, []);
});

test('power, stale values, alarms and gaps', async (context) => {
  const { mock, page } = await open(context);
  await page.until(live, PATIENCE_MS);
  await mock.control({ power: 'DIE-01', on: false });
  await page.until(`${card('DIE-01')}.dataset.power === 'off' && ${value('DIE-01', 'on')} === 'Off'`, PATIENCE_MS);
  assert.equal(await page.evaluate(`${card('SLIT-01')}.dataset.stale`), 'false');
  await mock.control({ stale: 'SLIT-01' });
  await page.until(`${card('SLIT-01')}.querySelector('[data-field="speed"]').dataset.stale === 'true'`, PATIENCE_MS);
  assert.deepEqual(await page.evaluate(`[${card('SLIT-01')}.dataset.stale, ${card('SLIT-01')}.querySelector('[data-channel="telemetry"]').dataset.stale, ${card('CORR-01')}.dataset.stale]`), ['true', 'true', 'false']);
  await page.until(`/^1\\d s old$/.test(${card('SLIT-01')}.querySelector('[data-channel="telemetry"] .age').textContent)`, PATIENCE_MS);
  await mock.control({ fresh: 'SLIT-01' });
  await page.until(`${card('SLIT-01')}.dataset.stale === 'false' && ${card('SLIT-01')}.querySelector('.age').textContent === ''`, PATIENCE_MS);
  await mock.control({ alarm: { device: 'CORR-01', values: { code: 4711, severity: 'critical', text: 'Paper break' } } });
  await page.until('document.getElementById("alarm-list").textContent.includes("Paper break") && Number(document.getElementById("alarm-count").dataset.active) > 0', PATIENCE_MS);
  assert.equal(await page.evaluate(value('CORR-01', 'severity')), 'critical');
  await mock.control({ alarm: { device: 'CORR-01', values: { code: 4711, severity: 'cleared', text: 'Paper break' } } });
  await page.until('[...document.querySelectorAll("#alarm-list li")].some((row) => row.textContent.includes("#4711") && row.textContent.includes("cleared"))', PATIENCE_MS);
  await mock.control({ gap: { device: 'CORR-01', channel: 'alarms', reason: 'Retention', lost: 3 } });
  await page.until('document.getElementById("notice-list").textContent.includes("CORR-01 alarms: 3 events are missing")', PATIENCE_MS);
});

test('a lost server is shown with a count-down, and the page recovers with the same cards', async (context) => {
  const { mock, page } = await open(context);
  await page.until(live, PATIENCE_MS);
  await page.evaluate(`${card('CORR-01')}.dataset.mark = 'the same node'; document.getElementById('connection-state').getAttribute('aria-live')`);
  await mock.control({ away: true });
  await page.until('document.body.dataset.connection === "reconnecting" && document.getElementById("bar").dataset.connection === "reconnecting"', PATIENCE_MS);
  await page.until('/^in \\d+ s$/.test(document.getElementById("connection-detail").textContent)', PATIENCE_MS);
  assert.equal(await page.evaluate('document.getElementById("connection-state").textContent'), 'Reconnecting');
  await page.until(`${card('FLEX-01')}.dataset.stale === 'true'`, PATIENCE_MS);
  await mock.control({ away: false });
  await page.until(live, 40_000);
  await page.until(`${card('FLEX-01')}.dataset.stale === 'false'`, PATIENCE_MS);
  assert.equal(await page.evaluate(`${card('CORR-01')}.dataset.mark`), 'the same node');
  assert.match(await page.evaluate('document.getElementById("notice-list").textContent'), /Live again after/);
});

test('a token is asked for, used, and kept for the tab only', async (context) => {
  const { page } = await open(context, { mock: { token: 's3cret' } });
  await page.until('document.body?.dataset.connection === "refused" && !document.getElementById("token-form").hidden', PATIENCE_MS);
  await page.evaluate('document.getElementById("token").value = "s3cret"; document.getElementById("token-form").requestSubmit()');
  await page.until(live, PATIENCE_MS);
  assert.deepEqual(await page.evaluate('[sessionStorage.getItem("flutecast.token.demo"), localStorage.length, document.cookie, document.getElementById("token").value, document.getElementById("refusal").hidden]'), ['s3cret', 0, '', '', true]);
});

test('a token in the address is used and removed from it', async (context) => {
  const { page } = await open(context, { mock: { token: 's3cret' }, path: '?tenant=demo#token=s3cret' });
  await page.until(live, PATIENCE_MS);
  assert.equal(await page.evaluate('location.hash + location.search'), '?tenant=demo');
});

test('text of a server never becomes markup', async (context) => {
  const { mock, page } = await open(context);
  await page.until(live, PATIENCE_MS);
  const evil = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>';
  const device = {
    device: evil, name: evil, labels: { line: evil, type: evil },
    channels: [{ channel: evil, delivery: 'Latest', staleAfterMs: 1, fields: [{ name: evil, type: 'Number', unit: evil }, { name: 'e', type: 'Enum' }, { name: 's', type: 'String', unit: evil }] },
      { channel: 'alarms', delivery: 'Every', staleAfterMs: null, fields: [{ name: 'severity', type: 'String' }, { name: 'text', type: 'String' }] }],
  };
  const send = (event, body) => mock.control({ send: `${event ? `event: ${event}\n` : ''}data: ${JSON.stringify(body)}\n\n` });
  await send('devices', { added: [device], removed: [] });
  await send('', { device: evil, channel: evil, time: new Date().toISOString(), values: { [evil]: evil, e: evil, s: evil } });
  await send('', { device: evil, channel: 'alarms', time: new Date().toISOString(), values: { severity: evil, text: evil } });
  await send('gap', { device: evil, channel: evil, reason: evil, lost: null });
  await send('', { device: evil, channel: evil, time: new Date().toISOString(), values: { [evil]: null, e: null, s: evil }, bad: { [evil]: evil, e: evil }, at: { s: evil } });
  await send('problem', { device: evil, channel: evil, problem: { reason: evil, field: evil, place: evil, found: evil, message: evil, count: 2, since: evil, last: evil } });
  await send('refused', { device: `${evil}2`, reason: evil, message: evil });
  await send('', { device: 'CORR-01', channel: 'power', time: new Date().toISOString(), values: { on: false } });
  await page.until(`${card('CORR-01')}.dataset.power === 'off'`, PATIENCE_MS);
  await page.until('document.getElementById("lines").textContent.includes("onerror")', PATIENCE_MS);
  assert.deepEqual(await page.evaluate('[document.title, document.querySelectorAll("main img, main script, footer img, footer script").length]'), ['demo · Flutecast', 0]);
  assert.deepEqual(page.problems, []);
});

/** Sends an event as the server does. */
const say = (mock, event, body) => mock.control({ send: `event: ${event}\ndata: ${JSON.stringify(body)}\n\n` });
const TOO_OLD = {
  reason: 'TooOld', field: null, place: '/ts', found: '1795341560123', count: 3, since: '2026-11-22T10:00:00Z', last: '2026-11-22T10:00:20Z',
  message: 'the time was 40 s before the message was stored, and maxAge is 30s; set the device\'s clock, or raise maxAge',
};
const line = (code, channel) => `${card(code)}.querySelector('[data-problem="${channel}"]')`;

test('a problem is shown in a line that opens to the place, on each kind of channel, and goes when it ends', async (context) => {
  const { mock, page } = await open(context);
  await page.until(live, PATIENCE_MS);
  await page.until(`${value('CORR-01', 'state')} === 'running'`, PATIENCE_MS);
  for (const channel of ['telemetry', 'power', 'alarms']) {
    assert.equal(await page.evaluate(`${line('CORR-01', channel)}.checkVisibility()`), false, channel);
    await say(mock, 'problem', { device: 'CORR-01', channel, problem: TOO_OLD });
    await page.until(`${line('CORR-01', channel)}.checkVisibility()`, PATIENCE_MS);
    const text = await page.evaluate(`${line('CORR-01', channel)}.querySelector('summary').textContent`);
    for (const part of ['Too old', '3 ×', 'set the device\'s clock']) assert.ok(text.includes(part), text);
    assert.equal(await page.evaluate(`${line('CORR-01', channel)}.title`), '/ts: 1795341560123');
  }
  assert.equal(await page.evaluate(`${card('CORR-01')}.dataset.problems + ${card('FLEX-01')}.dataset.problems`), 'truefalse');
  await page.until('document.querySelector(".summary").textContent.includes("1 with problems")', PATIENCE_MS);
  // By keyboard: the line takes the focus, and Enter opens it.
  await page.evaluate(`${line('CORR-01', 'telemetry')}.querySelector('summary').focus()`);
  await page.press('Enter');
  await page.until(`${line('CORR-01', 'telemetry')}.open && ${line('CORR-01', 'telemetry')}.querySelector('dl').checkVisibility()`, PATIENCE_MS);
  const details = `[...${line('CORR-01', 'telemetry')}.querySelectorAll('dd')].map((node) => node.textContent)`;
  assert.deepEqual((await page.evaluate(details)).slice(0, 2), ['/ts', '1795341560123']);
  await say(mock, 'problem', { device: 'CORR-01', channel: 'telemetry', problem: { ...TOO_OLD, reason: 'FieldNotFound', field: 'glueGap', found: null, count: 1 } });
  await page.until(`${line('CORR-01', 'telemetry')}.dataset.reason === 'FieldNotFound' && ${line('CORR-01', 'telemetry')}.dataset.tone === 'info'`, PATIENCE_MS);
  assert.match(await page.evaluate(`${line('CORR-01', 'telemetry')}.querySelector('summary').textContent`), /Field not found: Glue gap/);
  for (const channel of ['telemetry', 'power', 'alarms']) await say(mock, 'problem', { device: 'CORR-01', channel, problem: null });
  await page.until(`${card('CORR-01')}.dataset.problems === 'false' && ![...${card('CORR-01')}.querySelectorAll('.problem')].some((node) => node.checkVisibility())`, PATIENCE_MS);
  assert.deepEqual(page.problems, []);
});

test('a field that can’t be read is a dash with its raw text, until it can be read again', async (context) => {
  const { mock, page } = await open(context);
  await page.until(live, PATIENCE_MS);
  await page.until(`${value('CORR-01', 'state')} === 'running'`, PATIENCE_MS);
  await mock.control({ stale: 'CORR-01' });
  const raw = (field) => `${card('CORR-01')}.querySelector('[data-raw="${field}"]')`;
  const now = () => new Date().toISOString();
  await mock.control({ data: { device: 'CORR-01', channel: 'telemetry', time: now(), values: { speed: null, state: null }, bad: { speed: '<b>NaN</b>', state: '7' } } });
  await mock.control({ data: { device: 'CORR-01', channel: 'power', time: now(), values: { on: null }, bad: { on: 'maybe' } } });
  await page.until(`${value('CORR-01', 'state')} === '–' && ${value('CORR-01', 'speed')} === '–' && ${card('CORR-01')}.dataset.power === 'unknown'`, PATIENCE_MS);
  assert.deepEqual(await page.evaluate(`['speed', 'state', 'on'].map((field) => ${card('CORR-01')}.querySelector('[data-raw="' + field + '"]')).map((node) => [node.textContent, node.checkVisibility(), node.getAttribute('aria-label')])`),
    [['<b>NaN</b>', true, 'can\'t be read: <b>NaN</b>'], ['7', true, 'can\'t be read: 7'], ['maybe', true, 'can\'t be read: maybe']]);
  await mock.control({ data: { device: 'CORR-01', channel: 'telemetry', time: now(), values: { speed: 5, state: 'stopped' } } });
  await page.until(`${value('CORR-01', 'state')} === 'stopped' && ${value('CORR-01', 'speed')} === '5.0' && !${raw('speed')}.checkVisibility() && !${raw('state')}.checkVisibility()`, PATIENCE_MS);
});

test('the fields of a record that are older than it show their age', async (context) => {
  const { mock, page } = await open(context);
  await page.until(live, PATIENCE_MS);
  await mock.control({ stale: 'CORR-01' });
  const at = (ms) => new Date(Date.now() - ms).toISOString();
  await mock.control({ data: { device: 'CORR-01', channel: 'telemetry', time: at(0), values: { speed: 5, glueGap: 7, webTension: 9 }, at: { glueGap: at(180_000), webTension: at(1_000) } } });
  const age = (field) => `${card('CORR-01')}.querySelector('[data-age="${field}"]').textContent`;
  await page.until(`${age('glueGap')} === '3 min' && ${age('speed')} === ''`, PATIENCE_MS);
  await page.until(`/^[56] s$/.test(${age('webTension')})`, PATIENCE_MS);
  await mock.control({ data: { device: 'CORR-01', channel: 'telemetry', time: at(0), values: { speed: 6, glueGap: 8, webTension: 9 } } });
  await page.until(`${age('glueGap')} === '' && ${age('webTension')} === ''`, PATIENCE_MS);
});

test('late alarms are listed and marked; a time of 2036 and equal times freeze nothing', async (context) => {
  const { mock, page } = await open(context);
  await page.until(live, PATIENCE_MS);
  await mock.control({ stale: 'CORR-01' });
  const at = (ms) => new Date(Date.now() + ms).toISOString();
  const alarm = (code, ms, late) => mock.control({ data: { device: 'CORR-01', channel: 'alarms', time: at(ms), values: { code, severity: 'critical', text: `no ${code}` }, ...(late && { late }) } });
  await alarm(801, 0);
  await alarm(802, -1_000);
  await alarm(803, -60_000, true);
  const rows = '[...document.querySelectorAll("#alarm-list li")].map((row) => row.textContent)';
  await page.until(`['no 801', 'no 802', 'no 803'].every((text) => ${rows}.some((row) => row.includes(text)))`, PATIENCE_MS);
  assert.deepEqual(await page.evaluate(`['no 801', 'no 803'].map((text) => ${rows}.find((row) => row.includes(text)).includes('· late'))`), [false, true]);
  assert.match(await page.evaluate(`${card('CORR-01')}.querySelector('.alarm-line').textContent`), /no 803.*· late/);
  const time = at(0);
  for (const [speed, when] of [[1, '2036-01-01T00:00:00.000Z'], [2, time], [3, time], [4, at(-3_600_000)]]) {
    await mock.control({ data: { device: 'CORR-01', channel: 'telemetry', time: when, values: { speed, state: 'running' } } });
    await page.until(`${value('CORR-01', 'speed')} === '${speed}.0'`, PATIENCE_MS);
  }
});

for (const [width, height, dark] of [[390, 844, false], [1366, 768, true], [1920, 1080, true]]) {
  test(`at ${width}×${height} nothing is wider than the window`, async (context) => {
    const { mock, page } = await open(context, { width, height, dark });
    await page.until(live, PATIENCE_MS);
    await page.until(`/^\\d/.test(${value('CORR-01', 'speed')})`, PATIENCE_MS);
    // Also with long texts of problems, and values that can't be read.
    const raw = 'x'.repeat(64);
    const fields = ['speed', 'glueGap', 'webTension', 'state'];
    const all = (text) => Object.fromEntries(fields.map((field) => [field, text]));
    await mock.control({ stale: 'CORR-01' });
    await mock.control({ data: { device: 'CORR-01', channel: 'telemetry', time: new Date().toISOString(), values: all(null), bad: all(raw), at: all('2026-11-01T00:00:00Z') } });
    await mock.control({ data: { device: 'CORR-01', channel: 'power', time: new Date().toISOString(), values: { on: null }, bad: { on: raw } } });
    for (const channel of ['telemetry', 'power', 'alarms']) await say(mock, 'problem', { device: 'CORR-01', channel, problem: { ...TOO_OLD, found: raw, place: `/${raw}`, message: raw.repeat(3) } });
    await page.until(`${value('CORR-01', 'state')} === '–' && ${line('CORR-01', 'alarms')}.checkVisibility()`, PATIENCE_MS);
    await page.evaluate(`document.querySelectorAll('.problem').forEach((node) => { node.open = true; })`);
    assert.ok(await page.evaluate('document.documentElement.scrollWidth') <= width);
    const wide = await page.evaluate(`[...document.querySelectorAll('.card *')].filter((node) => node.getBoundingClientRect().right > node.closest('.card').getBoundingClientRect().right + 1).map((node) => node.className)`);
    assert.deepEqual(wide, []);
    });
}

test('two hundred devices: values are written once per frame, and only where they differ', async (context) => {
  const { page } = await open(context, { mock: { copies: 40 } });
  await page.until(live, PATIENCE_MS);
  await page.until('document.querySelectorAll("[data-device]").length === 200', PATIENCE_MS);
  const seen = await page.evaluate(`(async () => {
    const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    // Frames are frozen: nothing may be written, and values and plots may request at most one frame each.
    const frames = [];
    const real = window.requestAnimationFrame;
    window.requestAnimationFrame = (callback) => frames.push(callback);
    await wait(100);
    frames.splice(0).forEach((callback) => callback(performance.now()));
    let writes = 0;
    let same = 0;
    const texts = new Map([...document.querySelectorAll('.value')].map((node) => [node, node.textContent]));
    const observer = new MutationObserver((records) => {
      const changed = new Set(records.map(({ target }) => target.parentElement?.closest('.value') ?? (target.closest ? target.closest('.value') : null)).filter(Boolean));
      for (const node of changed) {
        writes += 1;
        if (texts.get(node) === node.textContent) same += 1;
        texts.set(node, node.textContent);
      }
    });
    observer.observe(document.getElementById('lines'), { subtree: true, childList: true, characterData: true });
    await wait(1_000);
    const still = { writes, asked: frames.length };
    frames.splice(0).forEach((callback) => callback(performance.now()));
    await wait(50);
    const moved = { writes, same };
    observer.disconnect();
    window.requestAnimationFrame = real;
    return { still, moved };
  })()`);
  assert.equal(seen.still.writes, 0, JSON.stringify(seen));
  assert.ok(seen.still.asked <= 2, JSON.stringify(seen));
  assert.ok(seen.moved.writes > 200, JSON.stringify(seen));
  assert.equal(seen.moved.same, 0, JSON.stringify(seen));
});
