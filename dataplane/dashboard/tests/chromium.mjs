/**
 * Drives headless Chromium over its debugging pipe: opens pages, evaluates expressions and takes screenshots.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';

/** The browser; the environment can name another one. */
const PROGRAM = process.env.CHROMIUM ?? 'chromium';

/** Starts a browser with an empty profile. */
export async function openBrowser() {
  const profile = await mkdtemp(path.join(tmpdir(), 'flutecast-chromium-'));
  const child = spawn(PROGRAM, [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--hide-scrollbars', '--remote-debugging-pipe', `--user-data-dir=${profile}`, 'about:blank',
  ], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  const [, , , input, output] = child.stdio;
  let sequence = 0;
  const waiting = new Map();
  const listeners = new Set();
  let rest = Buffer.alloc(0);
  const failAll = (why) => {
    for (const { reject } of waiting.values()) reject(new Error(why));
    waiting.clear();
  };
  child.on('error', (error) => failAll(String(error)));
  child.on('exit', () => failAll('the browser ended'));
  input.on('error', () => {});
  output.on('data', (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (let end; (end = rest.indexOf(0)) >= 0; rest = rest.subarray(end + 1)) {
      const message = JSON.parse(rest.subarray(0, end).toString());
      const call = waiting.get(message.id);
      if (call) {
        waiting.delete(message.id);
        if (message.error) call.reject(new Error(message.error.message));
        else call.resolve(message.result);
      } else for (const listener of listeners) listener(message);
    }
  });
  const send = (method, params = {}, sessionId = undefined) => new Promise((resolve, reject) => {
    sequence += 1;
    waiting.set(sequence, { resolve, reject });
    input.write(`${JSON.stringify({ id: sequence, method, params, sessionId })}\0`);
  });

  return {
    async page({ width, height, scale = 1, dark = true }) {
      const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
      const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
      const call = (method, params) => send(method, params, sessionId);
      const problems = [];
      listeners.add(({ method, params, sessionId: from }) => {
        if (from !== sessionId) return;
        if (method === 'Runtime.exceptionThrown') problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
        if (method === 'Log.entryAdded' && params.entry.level === 'error') problems.push(`${params.entry.text} ${params.entry.url ?? ''}`);
        if (method === 'Runtime.consoleAPICalled' && params.type === 'error') problems.push(params.args.map((one) => one.value ?? one.description).join(' '));
      });
      await call('Runtime.enable');
      await call('Log.enable');
      await call('Page.enable');
      const metrics = { width, height, deviceScaleFactor: scale, mobile: width < 600 };
      await call('Emulation.setDeviceMetricsOverride', metrics);
      await call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }] });
      const evaluate = async (expression) => {
        const { result, exceptionDetails } = await call('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
        if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
        return result.value;
      };
      return {
        problems, evaluate,
        open: (url) => call('Page.navigate', { url }),
        async until(expression, ms) {
          const end = Date.now() + ms;
          for (;;) {
            const value = await evaluate(expression);
            if (value) return value;
            if (Date.now() > end) throw new Error(`not within ${ms} ms: ${expression}; it was ${JSON.stringify(value)}`);
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
        },
        /** Presses a key. */
        async press(key) {
          for (const type of ['keyDown', 'keyUp']) await call('Input.dispatchKeyEvent', { type, key, code: key, text: key === 'Enter' ? '\r' : undefined });
        },
        /** Makes the window as high as the page. */
        async grow() {
          const { cssContentSize } = await call('Page.getLayoutMetrics');
          await call('Emulation.setDeviceMetricsOverride', { ...metrics, height: Math.ceil(cssContentSize.height) });
        },
        async picture() {
          const { data } = await call('Page.captureScreenshot', { format: 'png' });
          return Buffer.from(data, 'base64');
        },
      };
    },
    async close() {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      send('Browser.close').catch(() => {});
      const timer = setTimeout(() => child.kill('SIGKILL'), 5_000);
      await gone;
      clearTimeout(timer);
      await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
}
