// Downloads with their settings, with and without scripts, and copying: all lines, a selection, Markdown, and what a page says
// if the browser doesn't let it copy.
import { type Page } from '@playwright/test';
import path from 'node:path';
import { expect, test, visit } from './fixtures.ts';
import { create, waitForEnd } from './sessions.ts';
import { clip } from './speech.ts';

const ENGINE = path.join(import.meta.dirname, 'counting_engine.py');

test.use({ harkEnv: { HARK_ENGINE: 'command', HARK_ENGINE_COMMAND: `python3 ${ENGINE} 0` } });

async function openTranscript(page: Page): Promise<string[]> {
  await visit(page, '/');
  const id = await create(page, clip('wav'));
  expect(await waitForEnd(page, id)).toBe('completed');
  await visit(page, `/sessions/${id}`);
  return page.locator('[data-testid=segment] p').allTextContents();
}

const get = async (page: Page, format: string) => {
  const href = await page.getByTestId(`download-${format}`).getAttribute('href');
  const response = await page.request.get(href!);
  expect(response.status()).toBe(200);
  return response.text();
};

test('settings change the files', async ({ page }) => {
  await openTranscript(page);
  for (const format of ['docx', 'md', 'txt', 'srt', 'vtt', 'csv', 'json']) expect(await get(page, format)).not.toBe('');
  expect(await get(page, 'txt')).toMatch(/^line \d/);
  await page.getByTestId('download-settings').click();
  await page.getByTestId('setting-times').check();
  await page.getByTestId('setting-lines').fill('1');
  await page.getByTestId('setting-chars').fill('20');
  expect(await get(page, 'txt')).toMatch(/^\[0:00\] line \d/);
  await expect(page.getByTestId('download-srt')).toHaveAttribute('href', /\?times=true&lines=1&chars=20$/);
  // A number that can't be is as if it weren't there.
  await page.getByTestId('setting-chars').fill('2');
  await expect(page.getByTestId('download-vtt')).toHaveAttribute('href', /\?times=true&lines=1&chars=20$/);
});

test.describe('without scripts', () => {
  test.use({ javaScriptEnabled: false });
  test('the settings are a form', async ({ page }) => {
    await openTranscript(page);
    await page.getByTestId('download-settings').click();
    await page.getByTestId('setting-times').check();
    await page.getByTestId('setting-chars').fill('30');
    await page.getByRole('button', { name: 'Apply' }).click();
    await expect(page.getByTestId('download-srt')).toHaveAttribute('href', /\?times=true&lines=2&chars=30$/);
    expect(await get(page, 'txt')).toMatch(/^\[0:00\] line \d/);
    await expect(page.getByTestId('copy')).toBeHidden();
  });
});

test('the transcript is copied: all, a selection, as Markdown', async ({ page, context }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const lines = await openTranscript(page);
  const copied = () => page.evaluate(() => navigator.clipboard.readText());
  await page.getByTestId('copy').click();
  await expect(page.getByTestId('copied')).toHaveText('Copied all lines');
  expect(await copied()).toBe(lines.map(line => `${line}\n`).join(''));

  // From within the second line to within the third.
  await page.evaluate(() => {
    const [, second, third] = document.querySelectorAll('[data-testid=segment] p');
    const text = (p: Element) => document.createTreeWalker(p, NodeFilter.SHOW_TEXT).nextNode()!;
    getSelection()!.setBaseAndExtent(text(second), 2, text(third), 4);
  });
  await page.getByTestId('copy').click();
  await expect(page.getByTestId('copied')).toHaveText('Copied the selection');
  expect(await copied()).toBe(`${lines[1].slice(2)}\n${lines[2].slice(0, 4)}`);
  // As the browser copies it, it has no times either.
  await page.keyboard.press('Control+c');
  await expect.poll(copied).not.toMatch(/\d:\d\d/);

  await page.getByTestId('copy-markdown').click();
  await expect(page.getByTestId('copied')).toHaveText('Copied as Markdown');
  const markdown = await copied();
  expect(markdown).toMatch(/^# road\n\n\d+ \w+ \d+, \d\d:\d\d UTC · /);
  for (const line of lines) expect(markdown).toContain(line);
});

test('a page that may not copy says so and shows the text', async ({ page }) => {
  await page.addInitScript(() => {
    Object.defineProperty(navigator, 'clipboard', { value: { writeText: () => Promise.reject(new DOMException('no', 'NotAllowedError')) } });
    document.execCommand = () => false;
  });
  const lines = await openTranscript(page);
  await page.getByTestId('copy').click();
  const shown = page.getByTestId('copy-refused');
  await expect(shown).toContainText("doesn't let this page copy");
  await expect(shown.locator('textarea')).toHaveValue(lines.map(line => `${line}\n`).join(''));
  const selected = await shown.locator('textarea').evaluate((field: HTMLTextAreaElement) => field.selectionEnd - field.selectionStart);
  expect(selected).toBeGreaterThan(0);
  await shown.getByRole('button', { name: 'Close' }).click();
  await expect(shown).toBeHidden();
});

test('over plain http, the older way of copying works', async ({ page }) => {
  await page.addInitScript(() => Object.defineProperty(Navigator.prototype, 'clipboard', { get: () => undefined, configurable: true }));
  const lines = await openTranscript(page);
  await page.getByTestId('copy').click();
  await expect(page.getByTestId('copied')).toHaveText('Copied all lines');
  // Pasted, because this page can't read the clipboard.
  await page.getByRole('link', { name: 'Sessions' }).first().click();
  await page.getByTestId('search').focus();
  await page.keyboard.press('Control+v');
  await expect.poll(() => page.getByTestId('search').inputValue()).toContain(lines[0]);
});
