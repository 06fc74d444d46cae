// Without JavaScript all actions are plain forms and links, and the page of a running session reloads itself.
import { type Page } from '@playwright/test';
import { readFile } from 'node:fs/promises';
import { expect, test } from './fixtures.ts';
import { expectState } from './sessions.ts';
import { clip } from './speech.ts';
import { slowEngine } from './tones.ts';

test.use({ javaScriptEnabled: false });

const notice = (page: Page) => page.locator('noscript p.notice');

async function uploadClip(page: Page) {
  await page.goto('/upload');
  await page.getByTestId('file-input').setInputFiles(clip('wav'));
  await page.getByTestId('upload-submit').click();
  await page.waitForURL(/\/sessions\/[0-9a-f-]{36}$/);
}

test.describe('with a slow engine', () => {
  test.use({ harkEnv: slowEngine(0.3) });

  test('a running session is shown until its end, and its transcript can be downloaded', async ({ page }) => {
    await uploadClip(page);
    const title = await page.getByTestId('session-title').textContent();
    await expect(notice(page)).toHaveText('This page reloads every 3 seconds. Pause it before you type or select anything.');
    await expect(page.getByTestId('segment').first()).toBeVisible();
    await expect(page.getByTestId('progress')).toHaveAttribute('aria-valuenow', /\d/);
    // The test doesn't reload the page: the page reloads itself.
    await expectState(page, 'completed', 120_000);
    await expect(notice(page)).toHaveCount(0);
    const lines = await page.getByTestId('segment').count();
    expect(lines).toBeGreaterThan(20);
    for (const format of ['txt', 'srt', 'vtt', 'json']) {
      const downloading = page.waitForEvent('download');
      await page.getByTestId(`download-${format}`).click();
      const download = await downloading;
      expect(download.suggestedFilename()).toBe(`${title!.replace(/\.wav$/, '')}.${format}`);
      expect((await readFile(await download.path(), 'utf8')).match(/line \d/g)).toHaveLength(lines);
    }
  });

  test('the list reloads while something runs, and that can be paused', async ({ page }) => {
    await uploadClip(page);
    await page.goto('/?q=road');
    await expect(page.getByTestId('state')).toHaveAttribute('data-state', 'processing');
    await page.getByRole('link', { name: 'Pause' }).click();
    await expect(page).toHaveURL('/?q=road&reload=off');
    await expect(page.locator('meta[http-equiv=refresh]')).toHaveCount(0);
    await expect(page.getByTestId('session-row')).toHaveCount(1);
    await page.getByRole('link', { name: 'Go on' }).click();
    await expect(page).toHaveURL('/?q=road');
    // The test doesn't reload the page.
    await expect(page.getByTestId('state')).toHaveAttribute('data-state', 'completed', { timeout: 120_000 });
    await expect(notice(page)).toHaveCount(0);
  });

  test('reloading can be paused and resumed', async ({ page }) => {
    await uploadClip(page);
    await page.getByRole('link', { name: 'Pause' }).click();
    await expect(notice(page)).toHaveText('Reloading is paused. Go on');
    await expect(page.locator('meta[http-equiv=refresh]')).toHaveCount(0);
    await page.getByRole('link', { name: 'Go on' }).click();
    await expect(page.locator('meta[http-equiv=refresh]')).toHaveCount(1);
  });

  test('a running session is renamed on a page that does not reload meanwhile', async ({ page }) => {
    await uploadClip(page);
    const session = page.url();
    await expect(page.getByTestId('rename')).toBeHidden();
    await page.getByTestId('rename-link').click();
    await expect(page).toHaveURL(`${session}?reload=off&rename=on`);
    await expect(page.locator('meta[http-equiv=refresh]')).toHaveCount(0);
    await expect(page.getByTestId('rename-link')).toHaveCount(0);
    const field = page.getByTestId('rename-input');
    await expect(field).toBeFocused();
    await expect(field).toHaveValue((await page.getByTestId('session-title').textContent())!);
    // A failure leaves it open.
    await field.fill(' ');
    await page.getByTestId('rename-save').click();
    await expect(page.getByTestId('error-message')).toContainText('the title is empty');
    await expect(field).toBeVisible();
    await field.fill('The road');
    await page.getByTestId('rename-save').click();
    await expect(page.getByTestId('session-title')).toHaveText('The road');
    // The page goes on.
    await expect(page).toHaveURL(session);
    await expect(page.getByTestId('rename-input')).toBeHidden();
    await expect(page.locator('meta[http-equiv=refresh]')).toHaveCount(1);
  });

  test('cancel, retry, rename, search and delete work', async ({ page }) => {
    await uploadClip(page);
    const session = page.url();
    await expect(page.getByTestId('segment').first()).toBeVisible();
    await page.getByTestId('cancel').click();
    await expectState(page, 'cancelled');
    await page.getByTestId('retry').click();
    await expectState(page, 'completed', 60_000);
    await expect(page.getByTestId('attempt')).toHaveText('started 2 times');

    await page.getByTestId('rename').click();
    await page.getByTestId('rename-input').fill('The <road> & the "farm"');
    await page.getByTestId('rename-save').click();
    await expect(page.getByTestId('session-title')).toHaveText('The <road> & the "farm"');

    // Cancel a second session in the list.
    await uploadClip(page);
    await page.goto('/');
    await expect(page.getByTestId('session-row')).toHaveCount(2);
    await page.getByTestId('session-row').first().getByTestId('cancel').click();
    await expect(page.getByTestId('state').first()).toHaveAttribute('data-state', 'cancelled');
    await page.getByTestId('search').fill('ROAD> &');
    await page.getByTestId('search').press('Enter');
    await expect(page.getByTestId('session-row')).toHaveCount(1);
    await page.goto('/');
    const other = page.getByTestId('session-row').first();
    await other.getByTestId('menu').click();
    await other.getByTestId('delete').click();
    await other.getByTestId('confirm-delete').click();
    await expect(page.getByTestId('session-row')).toHaveCount(1);

    await page.goto(session);
    await page.getByTestId('delete').click();
    await page.getByTestId('confirm-delete').click();
    await page.waitForURL(url => url.pathname === '/');
    await expect(page.getByTestId('empty')).toBeVisible();
  });
});

test('one click transcribes the sample', async ({ page }) => {
  await page.goto('/');
  await page.getByTestId('try-sample').click();
  await page.waitForURL(/\/sessions\/[0-9a-f-]{36}$/);
  await expectState(page, 'completed', 180_000);
  await expect(page.getByTestId('segment').first()).not.toHaveText('');
});
