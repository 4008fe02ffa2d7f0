/**
 * Takes a screenshot of a page in headless Chromium over its debugging pipe (without npm packages).
 *
 *     node dataplane/dashboard/tests/screenshot.mjs http://127.0.0.1:8080/ out.png [--width 1600] [--height 1000] [--light] [--full]
 *          [--wait 5] [--scale 1] [--eval 'expression']
 *
 * It waits until the page is live (at most 15 s), then `--wait` seconds more. Console errors are printed and fail.
 */
import { writeFile } from 'node:fs/promises';
import process from 'node:process';
import { openBrowser } from './chromium.mjs';

const [url, out] = process.argv.slice(2);
const argument = (name, otherwise) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : process.argv[at + 1];
};
const flag = (name) => process.argv.includes(`--${name}`);

const browser = await openBrowser();
try {
  const page = await browser.page({
    width: Number(argument('width', 1600)), height: Number(argument('height', 1000)), scale: Number(argument('scale', 1)), dark: !flag('light'),
  });
  await page.open(url);
  await page.until('document.body?.dataset.connection === "live"', 15_000).catch((error) => console.log(String(error)));
  if (flag('full')) await page.grow();
  await new Promise((resolve) => setTimeout(resolve, Number(argument('wait', 5)) * 1_000));
  const expression = argument('eval');
  if (expression) console.log(JSON.stringify(await page.evaluate(expression)));
  await writeFile(out, await page.picture());
  for (const problem of page.problems) console.log(`console: ${problem}`);
  if (page.problems.length > 0) process.exitCode = 1;
} finally {
  await browser.close();
}
