// What a page shows of a transcript besides its lines: remarks, the language that was found, and words that the engine isn't
// sure of. The same while they come as on a page that is loaded afterwards.
import { type Locator } from '@playwright/test';
import { expect, test, visit } from './fixtures.ts';
import { clip } from './speech.ts';
import { expectState, state, upload } from './sessions.ts';
import path from 'node:path';

const ENGINE = path.join(import.meta.dirname, 'remarking_engine.py');
const REMARK = '0:10 to 0:20 could not be transcribed: the server was <b>busy</b>.';

test.use({ harkEnv: { HARK_ENGINE: 'command', HARK_ENGINE_COMMAND: `python3 ${ENGINE} 3` } });

test('remarks and unsure words are shown live and afterwards', async ({ page }) => {
  await visit(page, '/upload');
  await page.getByTestId('vocabulary-input').fill('Ada Lovelace, Babbage');
  await page.getByTestId('file-input').setInputFiles(clip('wav'));
  await page.getByTestId('upload-submit').click();
  await page.waitForURL(/\/sessions\/[0-9a-f-]{36}$/);

  const expectShown = async () => {
    await expect(page.getByTestId('remarks').getByRole('listitem')).toHaveText([REMARK]);
    await expect(page.getByTestId('segment').first()).toContainText('Ada Lovelace, Babbage knew it');
    await expect(page.locator('.unsure')).toHaveText(['knew']);
  };
  await expectShown();
  // They came before the end, not with it.
  await expect(state(page)).toHaveAttribute('data-state', 'processing');
  await expect(page.getByTestId('message')).toContainText('heard as German (75%)');
  await expectState(page, 'completed');
  await expectShown();

  await visit(page, page.url());
  await expectShown();
  await expect(page.getByTestId('facts')).toContainText('German (75%), found by the engine');
  await expect(page.getByTestId('facts')).toContainText('Ada Lovelace, Babbage');
});

test.describe('without scripts', () => {
  test.use({ javaScriptEnabled: false });
  test('remarks and unsure words are shown', async ({ page }) => {
    await upload(page, clip('wav'));
    await expect(async () => {
      await page.reload();
      await expectState(page, 'completed', 100);
    }).toPass({ timeout: 60_000, intervals: [1_000] });
    await expect(page.getByTestId('remarks').getByRole('listitem')).toHaveText([REMARK]);
    await expect(page.locator('.unsure')).toHaveText(['knew']);
  });
});

test.describe('right to left', () => {
  const title = 'شجرة التفاح.wav';
  const speech = 'شجرة تفاح عمرها 100 عام';
  test.use({ harkEnv: { HARK_ENGINE: 'command', HARK_ENGINE_COMMAND: `python3 ${ENGINE} 0` } });
  test('titles and lines have the direction of their text', async ({ page }) => {
    await visit(page, '/upload');
    await page.getByTestId('title-input').fill(title);
    await page.getByTestId('vocabulary-input').fill(speech);
    await page.getByTestId('language-select').selectOption('ar');
    await page.getByTestId('file-input').setInputFiles(clip('wav'));
    await page.getByTestId('upload-submit').click();
    await page.waitForURL(/\/sessions\/[0-9a-f-]{36}$/);
    await expectState(page, 'completed');
    await expect(page.getByTestId('facts')).toContainText('Arabic');

    const direction = (element: Locator) => element.evaluate(e => getComputedStyle(e).direction);
    const line = page.locator('[data-testid=segment] p').first();
    await expect(line).toContainText(speech);
    // What is said first stands at the right, and the label of a control is as ever.
    const [whole, time] = await Promise.all([line.boundingBox(), page.getByTestId('segment-time').first().boundingBox()]);
    expect(time!.x).toBeLessThan(whole!.x);
    expect(await direction(line)).toBe('rtl');
    expect(await direction(page.locator('h1'))).toBe('rtl');
    expect(await direction(page.getByTestId('facts').getByRole('heading'))).toBe('ltr');

    await page.getByRole('link', { name: 'Sessions' }).first().click();
    const row = page.getByTestId('session-title').first();
    await expect(row).toHaveText(title);
    expect(await direction(row.locator('bdi'))).toBe('rtl');
  });
});
