// The status of a session on its page: one line once it is done, on a phone a strip above the text while it runs, and after a
// failure the sentence with Retry.
import { expect, test, visit } from './fixtures.ts';
import { expectState } from './sessions.ts';
import { createTone, expectLines, slowEngine, startSession, startWithoutHydration } from './tones.ts';

test.describe('a session of a few seconds', () => {
  test.use({ harkEnv: slowEngine(0.3) });

  test('the status folds to one line when the session is done, and can be unfolded', async ({ page }) => {
    await visit(page, '/');
    const id = await startSession(page, 8);
    await expectLines(page, 1);
    await expect(page.getByTestId('stage-transcribing')).toBeVisible();
    await expect(page.getByTestId('status-toggle')).toBeHidden();
    await expectState(page, 'completed', 60_000);
    await expect(page.getByTestId('outcome')).toHaveText(/^0:08 in \d+ s, .+/);
    await expect(page.getByTestId('stage-transcribing')).toBeHidden();
    await expect(page.getByTestId('progress')).toBeHidden();
    const toggle = page.getByRole('button', { name: 'Details' });
    await expect(toggle).toHaveAttribute('aria-expanded', 'false');
    await toggle.focus();
    await page.keyboard.press('Enter');
    await expect(toggle).toHaveAttribute('aria-expanded', 'true');
    await expect(page.getByTestId('stage-transcribing')).toBeVisible();
    await expect(page.getByTestId('took')).toBeVisible();
    await page.keyboard.press('Enter');
    await expect(page.getByTestId('stage-transcribing')).toBeHidden();
    // The same after a reload.
    await visit(page, `/sessions/${id}`);
    await expect(page.getByTestId('outcome')).toHaveText(/^0:08 in \d+ s, .+/);
    await expect(page.getByTestId('stage-transcribing')).toBeHidden();
  });

  for (const width of [390, 1280]) {
    test(`the focus stays when the session goes on by itself, ${width} wide`, async ({ page, allow }) => {
      // The session that was deleted.
      allow(/404/);
      await page.setViewportSize({ width, height: 800 });
      const actions = page.getByRole('group', { name: 'Actions' });
      await visit(page, '/');
      const id = await startSession(page, 8);
      if (width < 1000) await page.getByTestId('status-toggle').click();
      await page.getByTestId('cancel').focus();
      await expectState(page, 'completed', 60_000);
      await expect(actions).toBeFocused();
      // In the list, too.
      await createTone(page, 8);
      await visit(page, '/');
      await page.getByTestId('cancel').focus();
      await expect(page.getByTestId('cancel')).toHaveCount(0, { timeout: 60_000 });
      await expect(actions.first()).toBeFocused();

      // Deleted on another device.
      await visit(page, `/sessions/${id}`);
      await page.getByTestId('rename').focus();
      expect((await page.request.delete(`/api/v1/sessions/${id}`)).ok()).toBe(true);
      // A page on which nothing runs looks once a minute, and when it comes into sight.
      await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
      await expect(page.getByRole('heading', { name: 'This session isn\'t here' })).toBeVisible();
      await expect(page.locator('main')).toBeFocused();
      await expect(page.getByTestId('announcer')).toHaveText('“tone.wav” was deleted.');
    });
  }

  test.describe('without scripts', () => {
    test.use({ javaScriptEnabled: false });

    test('everything is shown', async ({ page }) => {
      await page.goto('/');
      await startWithoutHydration(page, 2);
      await expectState(page, 'completed', 60_000);
      await expect(page.getByTestId('stage-transcribing')).toBeVisible();
      await expect(page.getByTestId('status-toggle')).toBeHidden();
    });
  });
});

test.describe('on a phone', () => {
  test.use({ harkEnv: slowEngine(1), viewport: { width: 390, height: 844 } });

  test('a strip with the progress stays above the text while the session runs', async ({ page }) => {
    await visit(page, '/');
    await startSession(page, 40);
    await expectLines(page, 3);
    const card = page.getByTestId('status-card');
    await expect(page.getByTestId('stage-transcribing')).toBeHidden();
    await expect(page.getByTestId('cancel')).toBeHidden();
    const height = async () => (await card.boundingBox())!.height;
    expect(await height()).toBeLessThan(72);
    // It stays while the page scrolls, and covers neither the header nor the player.
    await page.evaluate(() => window.scrollTo(0, 300));
    await expect(page.getByTestId('percent')).toBeInViewport();
    const boxes = await Promise.all(
      ['.header', '[data-testid=status-card]', '.player'].map(selector => page.locator(selector).first().boundingBox()),
    );
    const [header, strip, player] = boxes.map(box => box!);
    expect(strip.y).toBeGreaterThanOrEqual(header.y + header.height - 1);
    expect(player.y).toBeGreaterThanOrEqual(strip.y + strip.height - 1);
    const before = await page.getByTestId('percent').textContent();
    await expect(page.getByTestId('percent')).not.toHaveText(before!);
    // What is folded can be reached.
    await page.getByTestId('status-toggle').click();
    await expect(page.getByTestId('stage-transcribing')).toBeVisible();
    await page.getByTestId('cancel').click();
    await expectState(page, 'cancelled', 20_000);
    await expect(page.getByTestId('retry')).toBeVisible();
    // What is folded away can't keep the focus.
    await visit(page, page.url());
    await page.getByTestId('retry').focus();
    await page.keyboard.press('Enter');
    await expect(page.getByTestId('status-toggle')).toBeFocused();
  });
});

test.describe('a session whose engine breaks', () => {
  test.use({ harkEnv: { HARK_ENGINE: 'command', HARK_ENGINE_COMMAND: 'false', HARK_MAX_ATTEMPTS: '1' } });

  test('Retry is the first button, with the sentence', async ({ page }) => {
    await visit(page, '/');
    await startSession(page, 2);
    await expectState(page, 'failed', 60_000);
    const card = page.getByTestId('status-card');
    await expect(card.getByRole('button').first()).toHaveAttribute('data-testid', 'retry');
    await expect(card.locator('.alert')).toContainText(/engine/i);
    await expect(card.locator('.alert').getByTestId('retry')).toBeVisible();
    // The focus isn't lost when the button goes.
    await page.getByTestId('retry').focus();
    await page.keyboard.press('Enter');
    await expect(page.getByRole('group', { name: 'Actions' })).toBeFocused();
    await expectState(page, 'failed', 60_000);
  });
});
