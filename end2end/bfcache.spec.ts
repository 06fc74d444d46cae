// The browser's back/forward cache, which keeps a page that was left and resumes it when the person comes back.
// Playwright disables the cache in its browsers, so this file starts a browser of its own.
import config from './playwright.config.ts';
import { expect, test } from './fixtures.ts';
import { NETWORK_ERRORS, expectBadge, expectWholeTranscript, expectLines, slowEngine, startSession } from './tones.ts';

test.use({
  launchOptions: { ...config.use!.launchOptions, ignoreDefaultArgs: ['--disable-back-forward-cache'] },
  harkEnv: slowEngine(0.4),
});

test('a page from the back/forward cache goes on where it was', async ({ page, hark, allow }) => {
  allow(NETWORK_ERRORS);
  const expectStreams = () =>
    expect.poll(async () => /hark_streams_open\{kind="owner"\} (\d+)/.exec(await (await fetch(`${hark.url}/metrics`)).text())?.[1]);
  await page.addInitScript(() => addEventListener('pageshow', event => ((window as any).restored = event.persisted)));
  const id = await startSession(page, 40);
  await expectBadge(page, 'live');
  await expectLines(page, 2);
  await expectStreams().toBe('1');
  // A page outside the app.
  await page.goto('/api/openapi.json');
  await expectStreams().toBe('0');
  await page.waitForTimeout(2_000);
  // Not by `page.goBack()`: Playwright would wait for a load that doesn't happen.
  await page.evaluate(() => void setTimeout(() => history.back()));
  await expect(async () => expect(await page.evaluate(() => (window as any).restored)).toBe(true)).toPass();
  expect(await page.evaluate(() => location.pathname)).toBe(`/sessions/${id}`);
  await expectBadge(page, 'live');
  await expectStreams().toBe('1');
  await expectWholeTranscript(page, 40);
});
