// Search: in the texts of all sessions, with hits that lead to their second, and within one transcript by mouse and keyboard.
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test, visit } from './fixtures.ts';
import { create, expectState, waitForEnd } from './sessions.ts';
import { WORDS, clickWave, currentLineIsVisible, open } from './player.ts';
import { clip } from './speech.ts';

const ENGINE = path.join(import.meta.dirname, 'counting_engine.py');
const counting = (pause: number, hung = '') => ({ HARK_ENGINE: 'command', HARK_ENGINE_COMMAND: `python3 ${ENGINE} ${pause} ${hung}` });

test.use({ harkEnv: counting(0) });

for (const javaScriptEnabled of [true, false]) {
  test.describe(javaScriptEnabled ? 'with scripts' : 'without scripts', () => {
    test.use({ javaScriptEnabled });

    test('a hit in the texts leads to its line', async ({ page }) => {
      await visit(page, '/');
      const id = await create(page, clip('wav'));
      expect(await waitForEnd(page, id)).toBe('completed');
      await visit(page, '/');
      await page.getByTestId('search').fill('LINE 15');
      await page.getByTestId('search').press('Enter');
      const hits = page.getByTestId('found-line');
      await expect(hits).toHaveText(['0:15 line 15']);
      await expect(hits.locator('mark')).toHaveText('line');
      await expect(page.getByTestId('no-title')).toHaveText('No title has “LINE 15”.');

      await hits.click();
      await page.waitForURL(url => url.pathname === `/sessions/${id}` && url.searchParams.get('t') === '15.00');
      await expect(page.locator('#line-15')).toBeInViewport();
      if (javaScriptEnabled) {
        await expect(page.getByTestId('find')).toHaveValue('LINE 15');
        await expect(page.getByTestId('find-count')).toHaveText('1 of 1');
        await expect.poll(() => page.locator('audio').evaluate((audio: HTMLAudioElement) => Math.round(audio.currentTime))).toBe(15);
      }

      await visit(page, '/?q=nowhere');
      await expect(page.getByTestId('empty')).toContainText(/Nothing found\s*No title and no text has “\s*nowhere\s*”\./);
      await expect(page.getByTestId('found')).toHaveCount(0);
    });
  });
}

test('the search goes on from the hit that led to the page', async ({ page }) => {
  await visit(page, '/');
  const id = await create(page, clip('wav'));
  expect(await waitForEnd(page, id)).toBe('completed');
  const current = () =>
    page.evaluate(() => {
      const [range] = (CSS as any).highlights.get('found-now') as Set<Range>;
      return range?.startContainer.parentElement!.closest('.line')!.id;
    });
  // Reached within the app, and loaded.
  for (const reload of [false, true]) {
    await visit(page, '/?q=line');
    const hit = page.getByTestId('found-line').nth(2);
    await expect(hit).toHaveText('0:02 line 2');
    await hit.click();
    await page.waitForURL(url => url.pathname === `/sessions/${id}`);
    if (reload) await visit(page, page.url());
    const count = page.getByTestId('find-count');
    await expect(count).toHaveText(/^3 of /);
    expect(await current()).toBe('line-2');
    await page.getByTestId('find-next').click();
    await expect(count).toHaveText(/^4 of /);
    expect(await current()).toBe('line-3');
  }
});

test('what a search has found is announced, and the first list is not', async ({ page }) => {
  await visit(page, '/');
  const id = await create(page, clip('wav'));
  expect(await waitForEnd(page, id)).toBe('completed');
  await visit(page, '/');
  await page.evaluate(() => {
    const announcer = document.querySelector('[data-testid=announcer]')!;
    const said: string[] = ((window as any).said = []);
    new MutationObserver(() => said.push(announcer.textContent!)).observe(announcer, { childList: true });
  });
  await expect(page.getByTestId('session-row')).toHaveCount(1);
  const [field, announcer] = [page.getByTestId('search'), page.getByTestId('announcer')];
  await field.fill('road');
  await expect(announcer).toHaveText('1 session');
  expect(await page.evaluate(() => (window as any).said)).toEqual(['1 session']);
  await field.fill('"line 15"');
  await expect(announcer).toHaveText('1 line of text');
  await field.fill('nowhere');
  await expect(announcer).toHaveText('Nothing found');
  await field.fill('');
  await expect(announcer).toHaveText('1 session');
});

test('a transcript is searched by keyboard and mouse', async ({ page }) => {
  await visit(page, '/');
  const id = await create(page, clip('wav'));
  expect(await waitForEnd(page, id)).toBe('completed');
  await visit(page, `/sessions/${id}`);
  const [field, count] = [page.getByTestId('find'), page.getByTestId('find-count')];
  await field.fill('LINE 2');
  // 2, and all from 20 on.
  const lines = await page.locator('[data-testid=segment] p').allTextContents();
  const all = lines.filter(line => line.includes('line 2')).length;
  expect(all).toBeGreaterThan(3);
  await expect(count).toHaveText(`1 of ${all}`);
  const marked = () =>
    page.evaluate(() => {
      const highlights = (CSS as any).highlights as Map<string, Set<Range>>;
      return ['found', 'found-now'].map(name => [...highlights.get(name)!].map(range => range.toString()));
    });
  expect(await marked()).toEqual([Array(all).fill('line 2'), ['line 2']]);
  await expect(page.locator('#line-2')).toBeInViewport();
  await field.press('Enter');
  await expect(count).toHaveText(`2 of ${all}`);
  await expect(page.locator('#line-20')).toBeInViewport();
  await field.press('Shift+Enter');
  await field.press('Shift+Enter');
  await expect(count).toHaveText(`${all} of ${all}`);
  await page.getByTestId('find-next').click();
  await expect(count).toHaveText(`1 of ${all}`);
  await field.fill('nowhere');
  await expect(count).toHaveText('Not found');
  await expect(page.getByTestId('find-next')).toBeDisabled();
  await field.press('Escape');
  await expect(count).toHaveText('');
  expect(await marked()).toEqual([[], []]);
  await expect(page.locator('[data-found]')).toHaveCount(0);
});

test.describe('with lines of several rows', () => {
  test.use({ harkEnv: { ...WORDS, HARK_ENGINE_COMMAND: `${WORDS.HARK_ENGINE_COMMAND} 0.25 14` } });

  for (const width of [390, 1280]) {
    test(`links, searches and the recording lead to lines far away, ${width} wide`, async ({ page }) => {
      await page.setViewportSize({ width, height: 800 });
      const id = await open(page, 400);
      const expectInView = async (line: number) => {
        // Seen means that nothing covers it, and that it stays there.
        const isSeen = () =>
          page.locator(`#line-${line}`).evaluate(line => {
            const { left, top, width, height } = line.getBoundingClientRect();
            return line.contains(document.elementFromPoint(left + width / 2, top + height / 2));
          });
        await expect.poll(isSeen, { message: `line ${line}` }).toBe(true);
        await page.waitForTimeout(500);
        expect(await isSeen(), `line ${line}`).toBe(true);
      };
      for (const line of [150, 298]) {
        await visit(page, `/?q=line${line}`);
        await page.getByTestId('found-line').click();
        await page.waitForURL(url => url.pathname === `/sessions/${id}`);
        await expectInView(line);
        await visit(page, page.url());
        await expectInView(line);
        // Without what the page knows of the hit.
        await page.goto('/');
        await visit(page, `/sessions/${id}#line-${line}`);
        await expectInView(line);
      }
      await visit(page, `/sessions/${id}`);
      for (const line of [200, 90, 301]) {
        await page.getByTestId('find').fill(`line${line}`);
        await expectInView(line);
      }
      await page.getByTestId('transcript').evaluate(list => list.scrollTo(0, 0));
      for (const line of [120, 333, 40]) {
        await clickWave(page, (line + 0.5) / 400);
        await expect(page.locator(`#line-${line}`)).toHaveAttribute('aria-current', 'true');
        await page.keyboard.press('k');
        await expect.poll(() => currentLineIsVisible(page)).toBe(true);
        await page.waitForTimeout(500);
        expect(await currentLineIsVisible(page), `line ${line}`).toBe(true);
        await page.keyboard.press('k');
      }
    });
  }
});

test.describe('while it runs', () => {
  // It hangs after two lines.
  const hung = path.join(tmpdir(), `hark-search-${process.pid}-${Date.now()}`);
  test.use({ harkEnv: counting(1, hung) });
  test.afterAll(() => rm(hung, { force: true }));

  test('new lines are found, here and in the list', async ({ page, context }) => {
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    await page.getByTestId('find').fill('line');
    await expect(page.getByTestId('find-count')).toHaveText('1 of 2', { timeout: 30_000 });
    // The first is still the current one.
    expect(await page.evaluate(() => [...(CSS as any).highlights.get('found-now')].map(String))).toEqual(['line']);
    await page.getByTestId('find').fill('line 1');
    await expect(page.getByTestId('find-count')).toHaveText('1 of 1');
    await expectState(page, 'processing');
    const list = await context.newPage();
    await visit(list, '/?q=%22line%201%22');
    await expect(list.getByTestId('found-line')).toHaveText(['0:01 line 1']);
  });
});
