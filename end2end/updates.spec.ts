// How updates came, in the details of a session's page: by which way, how late, and with how many requests.
import { type Page } from '@playwright/test';
import { expect, expectGoodLooks, test } from './fixtures.ts';
import { expectBadge, expectWholeTranscript, slowEngine, startSession } from './tones.ts';

const updates = (page: Page) => page.getByTestId('updates');
const open = (page: Page) => updates(page).getByRole('heading', { name: 'How updates came' }).click();

/** Counts the requests for updates that a page makes. */
function countRequests(page: Page): () => number {
  let count = 0;
  page.on('request', request => {
    if (/\/status(\/stream)?$|\/segments$/.test(new URL(request.url()).pathname)) count++;
  });
  return () => count;
}

/** Checks the sum of the formula, and that it says what was saved. */
async function expectFormula(page: Page, made: number) {
  // What was counted until a second ago.
  await expect(updates(page)).toContainText(`${made} made`);
  const text = (await updates(page).textContent())!;
  const [, sum, total] = /: ((?:\d+ \+ )+\d+) = (\d+)\./.exec(text)!;
  expect(sum!.split(' + ').reduce((all, part) => all + Number(part), 0), text).toBe(Number(total));
  const saved = Number(/(\d+) saved/.exec(text)?.[1] ?? 0);
  expect(saved, text).toBe(Math.max(Number(total) - made, 0));
  return saved;
}

test.describe('with live updates', () => {
  test.use({ harkEnv: slowEngine(0.7) });

  test('a page tells how they came, once any has come', async ({ page }) => {
    const requests = countRequests(page);
    // The first page that a server makes takes longest, which would make the estimate of its clock a bad one.
    await page.request.get('/');
    await startSession(page, 20);
    await expect(updates(page)).toBeVisible();
    await expect(updates(page).getByRole('term').first()).toBeHidden();
    await open(page);
    await expect(updates(page)).toContainText(/Live, for \d+ s/);
    await expectWholeTranscript(page, 20);
    expect(await expectFormula(page, requests())).toBeGreaterThan(0);
    const unsure = await page.evaluate(() => {
      const [load] = performance.getEntriesByType('navigation') as PerformanceNavigationTiming[];
      return (load!.responseStart - load!.requestStart) / 2;
    });
    // Delays are known only where the server's clock is.
    if (unsure < 45) await expect(updates(page)).toContainText(/\d+ updates.* within \d+ ms/);
    await open(page);
    await expect(updates(page).getByRole('term').first()).toBeHidden();
  });

  test('a session that had ended before tells nothing of updates', async ({ page }) => {
    const id = await startSession(page, 3);
    await expectWholeTranscript(page, 3);
    await page.goto(`/sessions/${id}`);
    await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
    // Long enough for its clock to have ticked.
    await page.waitForTimeout(2_500);
    await expect(updates(page)).toHaveCount(0);
  });

  for (const colorScheme of ['light', 'dark'] as const) {
    for (const width of [390, 1280]) {
      test(`what is told is accessible and fits the window, ${colorScheme}, ${width} wide`, async ({ someone }) => {
        const page = await someone({ colorScheme, viewport: { width, height: 800 }, reducedMotion: 'reduce' });
        await startSession(page, 30);
        await open(page);
        await expect(updates(page)).toContainText(/Live, for \d+ s/);
        // What stays at the top covers parts of what is scrolled under it.
        await page.evaluate(() => window.scrollTo(0, 0));
        await expectGoodLooks(page, `updates-${colorScheme}-${width}`);
      });
    }
  }
});

test.describe('in the control group', () => {
  test.use({ harkEnv: { ...slowEngine(0.7), HARK_LINK_TIMING: 'first=4000', HARK_CONTROL_PERCENT: '100' } });

  test('a page tells that it asks', async ({ page }) => {
    const requests = countRequests(page);
    await startSession(page, 20);
    await expectBadge(page, 'polling');
    await open(page);
    await expectWholeTranscript(page, 20);
    await expect(updates(page)).toContainText(/By asking every 3 s, for \d+ s/);
    // It makes about as many requests as the formula says of polling.
    expect(await expectFormula(page, requests())).toBeLessThanOrEqual(1);
  });
});
