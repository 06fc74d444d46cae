// Browsers that run scripts but can't run the app, and apps that crash: pages then work as without JavaScript.
import { type Page } from '@playwright/test';
import { expect, test, visit } from './fixtures.ts';
import { expectState, state } from './sessions.ts';
import { expectBadge, expectWholeTranscript, expectLines, slowEngine, startSession, startWithoutHydration } from './tones.ts';

test.use({ harkEnv: slowEngine(1) });

/** Watches a session to its end on a page that is never hydrated. */
async function watchWithoutHydration(page: Page) {
  await startWithoutHydration(page, 12);
  await expect(state(page)).toHaveAttribute('data-state', /queued|processing/);
  await expect(page.locator('html[data-hydrated]')).toHaveCount(0);
  await expect(page.getByText('This page reloads every 3 seconds.')).toBeVisible();
  await expectState(page, 'completed', 60_000);
  await expect(page.getByTestId('segment')).toHaveCount(12);
  await expect(page.getByText('This page reloads')).toHaveCount(0);
}

test('without WebAssembly a session is shown until its end', async ({ page, allow }) => {
  allow(/WebAssembly/);
  await page.addInitScript(() => delete (window as any).WebAssembly);
  await watchWithoutHydration(page);
});

for (const file of ['js', 'wasm']) {
  test(`without the app's ${file} file a session is shown until its end`, async ({ page, allow }) => {
    allow(/404|dynamically imported module|WebAssembly|^uncaught: $/);
    await page.route(`**/pkg/*.${file}`, route => route.fulfill({ status: 404 }));
    await watchWithoutHydration(page);
  });
}

test('a page whose app has crashed is loaded again', async ({ page, allow }) => {
  allow(/unreachable/);
  await startSession(page, 12);
  await expectBadge(page, 'live');
  await expectLines(page, 2);
  const reloaded = page.waitForEvent('load');
  await page.evaluate(() => {
    // A module whose only function traps: (module (func (export "f") unreachable)).
    const bytes = [0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 5, 1, 3, 0, 0, 11];
    const broken = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(bytes)));
    setTimeout(broken.exports.f as () => void);
  });
  await reloaded;
  await expectBadge(page, 'live');
  await page.evaluate(() => ((window as any).marked = true));
  await expectWholeTranscript(page, 12);
});

test('if the address changes before hydration, its own page is loaded', async ({ page }) => {
  await visit(page, '/');
  await page.getByRole('link', { name: 'New transcription' }).click();
  await expect(page.getByTestId('file-input')).toBeAttached();
  let release = () => {};
  const held = new Promise<void>(resolve => (release = resolve));
  await page.route('**/pkg/*.wasm', async route => {
    await held;
    await route.continue();
  });
  await page.reload({ waitUntil: 'commit' });
  await expect(page.getByTestId('file-input')).toBeAttached();
  // Both history entries belong to one document now, so the browser loads nothing.
  await page.evaluate(() => history.back());
  await page.waitForURL(/\/$/);
  await expect(page.getByTestId('file-input')).toBeAttached();
  release();
  await expect(page.getByTestId('empty')).toBeVisible();
  await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
});
