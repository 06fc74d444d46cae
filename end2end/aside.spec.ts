// The browser's back/forward cache: a page that was left is put aside as it is, and resumed when one comes back.
// Playwright switches that off for its browsers, so this file has one of its own.
import config from './playwright.config.ts';
import { expect, test } from './fixtures.ts';
import { NOISE, badge, expectWhole, lines, slow, start } from './tones.ts';

test.use({
  launchOptions: { ...config.use!.launchOptions, ignoreDefaultArgs: ['--disable-back-forward-cache'] },
  harkEnv: slow(0.4),
});

test('a page that was put aside goes on where it was', async ({ page, hark, allow }) => {
  allow(NOISE);
  const streams = () =>
    expect.poll(async () => /hark_streams_open\{kind="owner"\} (\d+)/.exec(await (await fetch(`${hark.url}/metrics`)).text())?.[1]);
  await page.addInitScript(() => addEventListener('pageshow', event => ((window as any).restored = event.persisted)));
  const id = await start(page, 40);
  await badge(page, 'live');
  await lines(page, 2);
  await streams().toBe('1');
  // Out of the app.
  await page.goto('/api/openapi.json');
  await streams().toBe('0');
  await page.waitForTimeout(2_000);
  // Playwright waits in vain for a page that isn't loaded.
  await page.evaluate(() => void setTimeout(() => history.back()));
  await expect(async () => expect(await page.evaluate(() => (window as any).restored)).toBe(true)).toPass();
  expect(await page.evaluate(() => location.pathname)).toBe(`/sessions/${id}`);
  await badge(page, 'live');
  await streams().toBe('1');
  await expectWhole(page, 40);
});
