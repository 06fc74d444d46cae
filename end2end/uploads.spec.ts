// Uploads with scripts: several at once, chosen bit by bit, dropped anywhere, slow, cancelled, too large, and what becomes of each.
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type CDPSession, type Page } from '@playwright/test';
import { expect, test, visit } from './fixtures.ts';
import { expectState } from './sessions.ts';
import { wordErrorRate } from './speech.ts';
import { slowEngine, tone } from './tones.ts';

/** Limits how fast the page sends, in bytes per second; -1 ends that. */
async function throttle(page: Page, uploadThroughput: number, devtools?: CDPSession) {
  devtools ??= await page.context().newCDPSession(page);
  await devtools.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput });
  return devtools;
}

/** Drags files from outside the browser over the page's header, where no form is. */
async function drag(page: Page, files: string[]) {
  const devtools = await page.context().newCDPSession(page);
  const send = (type: 'dragEnter' | 'dragOver' | 'drop' | 'dragCancel') =>
    devtools.send('Input.dispatchDragEvent', { type, x: 200, y: 30, data: { items: [], files, dragOperationsMask: 1 } });
  await send('dragEnter');
  await send('dragOver');
  return { drop: () => send('drop'), leave: () => send('dragCancel') };
}

/** Writes recordings of so many seconds into the test's folder. Returns their paths. */
async function recordings(info: { outputPath(name: string): string }, names: string[], seconds: number): Promise<string[]> {
  const paths = names.map(name => info.outputPath(name));
  for (const [n, file] of paths.entries()) await writeFile(file, tone(seconds + n / 10));
  return paths;
}

test.describe('with a fast engine', () => {
  test.use({ harkEnv: { ...slowEngine(0), HARK_MAX_UPLOAD_BYTES: '6000000' } });

  test('ten files are uploaded at once, and the one that is not a recording is refused', async ({ page, allow }) => {
    allow(/status of 422/);
    await visit(page, '/upload');
    const file = (n: number) => ({ name: `part ${n}.wav`, mimeType: 'audio/wav', buffer: n === 4 ? Buffer.from('no sound') : tone(1 + n / 10) });
    await page.getByTestId('file-input').setInputFiles(Array.from({ length: 10 }, (_, n) => file(n)));
    await expect(page.getByTestId('chosen').locator('li')).toHaveCount(10);
    await page.getByTestId('upload-submit').click();
    const items = page.getByTestId('upload-item');
    await expect(items).toHaveCount(10);
    await expect(items.and(page.locator('[data-phase=done]'))).toHaveCount(9);
    await expect(items.and(page.locator('[data-phase=failed]')).getByTestId('error-message')).toContainText('text');
    // What became of each is shown beside it, live.
    await expect(items.locator('[data-testid=state][data-state=completed]')).toHaveCount(9, { timeout: 60_000 });
    const links = await items.getByTestId('upload-session').evaluateAll(all => all.map(a => a.getAttribute('href')));
    expect(new Set(links).size).toBe(9);
    await visit(page, '/');
    await expect(page.getByTestId('session-row')).toHaveCount(9);
    await expect(page.locator('[data-testid=state][data-state=completed]')).toHaveCount(9);
  });

  test('a slow upload shows its progress, and can be cancelled and tried again', async ({ page }, info) => {
    const file = info.outputPath('long.wav');
    await writeFile(file, tone(150));
    await visit(page, '/upload');
    const devtools = await throttle(page, 600_000);
    await page.getByTestId('file-input').setInputFiles(file);
    await page.getByTestId('upload-submit').click();
    const bar = page.getByTestId('upload-progress');
    const percent = async () => Number(await bar.getAttribute('aria-valuenow'));
    await expect.poll(percent).toBeGreaterThan(0);
    const before = await percent();
    await expect.poll(percent).toBeGreaterThan(before);
    await expect(page.getByTestId('upload-details')).toContainText(/MB of 4\.8 MB, [\d.]+ [kM]B\/s, .* left/);
    await expect(page.getByTestId('uploads-open')).toContainText('1');

    await page.getByTestId('cancel').click();
    await expect(page.getByTestId('upload-item')).toHaveAttribute('data-phase', 'aborted');
    await expect(page.getByTestId('uploads-open')).toHaveCount(0);
    expect(((await (await page.request.get('/api/v1/sessions')).json()) as { sessions: unknown[] }).sessions).toEqual([]);
    await throttle(page, -1, devtools);
    await page.getByTestId('retry').click();
    await page.waitForURL(/\/sessions\//);
    await expectState(page, 'completed', 60_000);
  });

  test('recordings can be dropped anywhere, on every page', async ({ page }, info) => {
    const [one, two, three] = await recordings(info, ['one.wav', 'two.wav', 'three.wav'], 1);
    await visit(page, '/');
    const target = page.getByTestId('drop-target');
    await expect(target).toBeHidden();
    const first = await drag(page, [one]);
    await expect(target).toBeVisible();
    await expect(target).toHaveText('Drop to transcribe');
    await first.leave();
    await expect(target).toBeHidden();
    await (await drag(page, [one])).drop();
    await page.waitForURL('/upload');
    await expect(target).toBeHidden();
    await expect(page.getByTestId('chosen')).toContainText('one.wav');
    await expect(page.getByTestId('announcer')).toHaveText('1 file chosen');
    await page.getByTestId('title-input').fill('A drop');
    await page.getByTestId('upload-submit').click();
    await page.waitForURL(/\/sessions\//);
    await expect(page.getByTestId('session-title')).toHaveText('A drop');
    await expectState(page, 'completed', 60_000);

    await (await drag(page, [two, three])).drop();
    await page.waitForURL('/upload');
    await expect(page.getByTestId('chosen').locator('li')).toHaveText([/two\.wav/, /three\.wav/]);
    // More of them are added, and none twice.
    await (await drag(page, [one, two])).drop();
    await expect(page.getByTestId('chosen').locator('li')).toHaveCount(3);
    // They are still there after a look at another page.
    await page.locator('.nav a[href="/"]').click();
    await expect(page.getByTestId('session-row')).toHaveCount(1);
    await page.locator('.nav a[href="/upload"]').click();
    await expect(page.getByTestId('chosen').locator('li')).toHaveCount(3);
    await expect(page.getByTestId('file-input')).toHaveJSProperty('files.length', 3);
    await page.getByTestId('upload-submit').click();
    const items = page.getByTestId('upload-item');
    await expect(items.locator('[data-testid=state][data-state=completed]')).toHaveCount(3, { timeout: 60_000 });
    // One is deleted in another tab.
    const tab = await page.context().newPage();
    await visit(tab, (await items.first().getByTestId('upload-session').getAttribute('href'))!);
    await tab.getByTestId('delete').click();
    await tab.getByTestId('confirm-delete').click();
    await expect(items.first()).toContainText('Deleted');
    await expect(items.first().getByTestId('upload-session')).toHaveCount(0);
  });

  test('a text or a link that is dragged is left to the browser, a file never is', async ({ page }) => {
    await visit(page, '/upload');
    /** Whether the page has taken each event of a drag for itself. */
    const taken = (kind: 'file' | 'text') =>
      page.evaluate(kind => {
        const dataTransfer = new DataTransfer();
        if (kind === 'file') dataTransfer.items.add(new File(['x'], 'x.wav'));
        else dataTransfer.setData('text/uri-list', 'https://example.org/');
        return ['dragenter', 'dragover', 'drop'].map(type => {
          const event = new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true });
          document.querySelector('.footer')!.dispatchEvent(event);
          return event.defaultPrevented;
        });
      }, kind);
    expect(await taken('text')).toEqual([false, false, false]);
    await expect(page.getByTestId('chosen')).toHaveCount(0);
    expect(await taken('file')).toEqual([true, true, true]);
    await expect(page.getByTestId('chosen')).toContainText('x.wav');
    await expect(page.getByTestId('drop-target')).toBeHidden();
  });

  test('chosen files add up, and each can be removed, by keyboard too', async ({ page }, info) => {
    const [a, b, c] = await recordings(info, ['a.wav', 'b.wav', 'c.wav'], 1);
    await visit(page, '/upload');
    const input = page.getByTestId('file-input');
    const chosen = page.getByTestId('chosen').locator('li');
    await input.setInputFiles([a, b]);
    await input.setInputFiles([b, c]);
    await expect(chosen).toHaveText([/a\.wav/, /b\.wav/, /c\.wav/]);
    await expect(input).toHaveJSProperty('files.length', 3);
    await expect(page.getByTestId('upload-submit')).toHaveText('Transcribe 3 files');
    const remove = (name: string) => page.getByRole('button', { name: `Remove ${name}` });
    await remove('b.wav').focus();
    await page.keyboard.press('Enter');
    await expect(chosen).toHaveText([/a\.wav/, /c\.wav/]);
    await expect(page.getByTestId('announcer')).toHaveText('b.wav removed');
    await expect(remove('c.wav')).toBeFocused();
    await page.keyboard.press('Enter');
    await expect(remove('a.wav')).toBeFocused();
    await expect(input).toHaveJSProperty('files.length', 1);
    await page.keyboard.press('Enter');
    await expect(chosen).toHaveCount(0);
    await expect(input).toBeFocused();
    await expect(input).toHaveJSProperty('files.length', 0);
    // What was removed can be chosen again.
    await input.setInputFiles([a]);
    await expect(chosen).toHaveText([/a\.wav/]);
    await page.getByTestId('upload-submit').click();
    await page.waitForURL(/\/sessions\//);
    await expect(page.getByTestId('session-title')).toHaveText('a.wav');
  });

  test('all uploads together have a bar, also on the list, and go on while other pages are open', async ({ page }, info) => {
    const files = await recordings(info, ['1.wav', '2.wav', '3.wav', '4.wav'], 50);
    await visit(page, '/upload');
    const devtools = await throttle(page, 900_000);
    await page.getByTestId('file-input').setInputFiles(files);
    await page.getByTestId('upload-submit').click();
    const total = page.getByTestId('uploads-total');
    await expect(total).toHaveText(/^0 of 4 sent, \d+%/);
    await expect(total).toHaveText(/^\d of 4 sent, \d+%, .+ left$/);
    const bar = page.getByTestId('uploads-progress');
    const percent = async () => Number(await bar.getAttribute('aria-valuenow'));
    await expect.poll(percent).toBeGreaterThan(0);

    await page.locator('.nav a[href="/"]').click();
    await expect(page.getByRole('heading', { name: 'Sessions' })).toBeVisible();
    await expect(page.getByTestId('upload-item').first()).toBeVisible();
    await expect(page.getByTestId('empty')).toHaveCount(0);
    const before = await percent();
    await expect.poll(percent).toBeGreaterThan(before);
    await expect(total).toHaveText(/^[1-3] of 4 sent/);
    // What has become a session is a row, and no upload any more.
    await expect(page.getByTestId('session-row').first()).toBeVisible();
    await throttle(page, -1, devtools);
    await expect(page.getByTestId('session-row')).toHaveCount(4);
    await expect(page.getByTestId('uploads')).toHaveCount(0);
    await page.locator('.nav a[href="/upload"]').click();
    await expect(page.getByTestId('upload-item').locator('[data-testid=state][data-state=completed]')).toHaveCount(4, { timeout: 60_000 });
    await expect(total).toHaveCount(0);
  });

  test('the focus moves on when what has it goes', async ({ page }, info) => {
    const files = await recordings(info, ['one.wav', 'two.wav', 'three.wav'], 60);
    const input = page.getByTestId('file-input');
    const button = (action: string, name: string) => page.getByRole('button', { name: `${action} ${name}` });
    const group = (name: string) => page.getByRole('group', { name: `Actions for ${name}` });
    await visit(page, '/upload');
    const devtools = await throttle(page, 100_000);
    await input.setInputFiles(files);
    await page.getByTestId('upload-submit').click();
    await button('Cancel', 'two.wav').press('Enter');
    await expect(group('two.wav')).toBeFocused();
    await button('Retry', 'two.wav').press('Enter');
    await expect(button('Cancel', 'two.wav')).toBeVisible();
    await expect(group('two.wav')).toBeFocused();
    await button('Cancel', 'two.wav').press('Enter');
    await button('Remove', 'two.wav').press('Enter');
    await expect(group('three.wav')).toBeFocused();
    await button('Cancel', 'three.wav').press('Enter');
    await button('Remove', 'three.wav').press('Enter');
    await expect(group('one.wav')).toBeFocused();

    // On the list, an upload that has become a session goes by itself.
    await page.locator('.nav a[href="/"]').click();
    await button('Cancel', 'one.wav').focus();
    await throttle(page, -1, devtools);
    await expect(page.getByTestId('uploads')).toHaveCount(0);
    await expect(page.locator('#main')).toBeFocused();

    await page.locator('.nav a[href="/upload"]').click();
    await throttle(page, 100_000, devtools);
    await input.setInputFiles(files.slice(1));
    await page.getByTestId('upload-submit').click();
    await button('Cancel', 'three.wav').focus();
    await throttle(page, -1, devtools);
    await expect(button('Remove', 'three.wav')).toBeVisible();
    await expect(group('three.wav')).toBeFocused();
    for (const name of ['three.wav', 'two.wav', 'one.wav']) await button('Remove', name).press('Enter');
    await expect(page.getByTestId('uploads')).toHaveCount(0);
    await expect(input).toBeFocused();
  });

  test('leaving asks first while files wait or are sent', async ({ page }, info) => {
    const [file] = await recordings(info, ['long.wav'], 100);
    const asked: string[] = [];
    page.on('dialog', dialog => {
      asked.push(dialog.type());
      void dialog.dismiss();
    });
    const leave = () => page.evaluate(() => location.reload());
    await visit(page, '/upload');
    const devtools = await throttle(page, 300_000);
    await page.evaluate(() => ((window as any).marked = true));
    await page.getByTestId('file-input').setInputFiles(file);
    await page.getByTestId('title-input').click();
    await leave();
    await expect.poll(() => asked).toEqual(['beforeunload']);
    await page.getByTestId('upload-submit').click();
    await expect(page.getByTestId('upload-item')).toHaveAttribute('data-phase', 'sending');
    await leave();
    await expect.poll(() => asked).toEqual(['beforeunload', 'beforeunload']);
    expect(await page.evaluate(() => (window as any).marked), 'the page is still there').toBe(true);
    await page.getByTestId('cancel').click();
    await throttle(page, -1, devtools);
    await leave();
    await expect.poll(() => page.evaluate(() => (window as any).marked).catch(() => true)).toBeUndefined();
    expect(asked).toHaveLength(2);
  });

  test('the file picker offers what can be read', async ({ page }) => {
    await visit(page, '/upload');
    const accept = (await page.getByTestId('file-input').getAttribute('accept'))!.split(',');
    for (const kind of ['audio/*', 'video/*', '.wav', '.m4b', '.mkv', '.wma', '.amr', '.dss']) expect(accept).toContain(kind);
  });

  test('a file that is too large is refused before it is sent', async ({ page }) => {
    const sent: string[] = [];
    page.on('request', request => {
      if (request.method() === 'POST') sent.push(request.url());
    });
    await visit(page, '/upload');
    await page.getByTestId('file-input').setInputFiles({ name: 'huge.wav', mimeType: 'audio/wav', buffer: tone(200) });
    await expect(page.getByTestId('chosen')).toContainText('6.4 MB, at most 6.0 MB');
    await page.getByTestId('upload-submit').click();
    await expect(page.getByTestId('error-message')).toContainText('6.4 MB, at most 6.0 MB');
    expect(sent).toEqual([]);
  });
});

test.describe('with a slow engine', () => {
  test.use({ harkEnv: { ...slowEngine(0.1), HARK_WORKERS: '1' } });

  test('what becomes of each upload is shown beside it, live', async ({ page }, info) => {
    const files = await recordings(info, ['first.wav', 'second.wav'], 60);
    await visit(page, '/upload');
    await page.getByTestId('file-input').setInputFiles(files);
    await page.getByTestId('upload-submit').click();
    const items = page.getByTestId('upload-item');
    const running = items.filter({ has: page.locator('[data-state=processing]') });
    await expect(running).toHaveCount(1);
    await expect(items.filter({ has: page.locator('[data-state=queued]') })).toHaveCount(1);
    await expect(running.getByTestId('upload-state')).toHaveText(/^[1-9]\d?%$/);
    await expect(items.locator('[data-testid=state][data-state=completed]')).toHaveCount(2, { timeout: 60_000 });
  });
});

test('the transcript of the sample matches its text', async ({ page }) => {
  await visit(page, '/');
  await page.getByTestId('try-sample').click();
  await page.waitForURL(/\/sessions\//);
  await expectState(page, 'completed', 180_000);
  const text = await readFile(path.join(import.meta.dirname, '../public/sample.txt'), 'utf8');
  const transcript = (await page.locator('[data-testid=segment] p').allTextContents()).join(' ');
  expect(wordErrorRate(text, transcript), transcript).toBeLessThanOrEqual(0.15);
});

test.describe('with two engines', () => {
  test.use({ harkEnv: { HARK_ENGINE: 'pocketsphinx', HARK_WORKERS: '0', HARK_OPENAI_URL: 'http://127.0.0.1:9/v1' } });

  test('the languages are those of the chosen engine, and a mismatch is told before the upload', async ({ page }) => {
    await visit(page, '/upload');
    const [language, engine] = [page.getByTestId('language-select'), page.getByTestId('engine-select')];
    const enabled = language.locator('option:enabled');
    await expect(enabled).toHaveText(['Let the engine decide', 'English']);
    await engine.selectOption('openai');
    await expect(enabled).toHaveCount(101);
    await language.selectOption({ label: 'German' });
    await expect(page.getByTestId('upload-submit')).toBeEnabled();
    await engine.selectOption('pocketsphinx');
    await expect(page.getByTestId('error-message')).toContainText('knows only English, not German. Choose the engine OpenAI API.');
    await expect(page.getByTestId('upload-submit')).toBeDisabled();
    await language.selectOption({ label: 'English' });
    await expect(page.getByTestId('upload-submit')).toBeEnabled();
  });

  test.describe('without JavaScript', () => {
    test.use({ javaScriptEnabled: false });

    test('all languages can be chosen, and the server refuses the one that does not fit', async ({ page }) => {
      await page.goto('/upload');
      await page.getByTestId('language-select').selectOption('de');
      await page.getByTestId('file-input').setInputFiles({ name: 'a.wav', mimeType: 'audio/wav', buffer: tone(1) });
      await page.getByTestId('upload-submit').click();
      await expect(page.getByTestId('error-message').first()).toContainText('knows only English, not German');
    });
  });
});
