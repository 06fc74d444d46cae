// Uploads with scripts: several at once, by drag and drop, slow, cancelled, too large.
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test, visit } from './fixtures.ts';
import { expectState } from './sessions.ts';
import { wordErrorRate } from './speech.ts';
import { slowEngine, tone } from './tones.ts';

test.describe('with a fast engine', () => {
  test.use({ harkEnv: { ...slowEngine(0), HARK_MAX_UPLOAD_BYTES: '6000000' } });

  test('ten files are uploaded at once, and the one that is not a recording is refused', async ({ page, allow }) => {
    allow(/status of 422/);
    await visit(page, '/upload');
    const file = (n: number) => ({ name: `part ${n}.wav`, mimeType: 'audio/wav', buffer: n === 4 ? Buffer.from('no sound') : tone(1) });
    await page.getByTestId('file-input').setInputFiles(Array.from({ length: 10 }, (_, n) => file(n)));
    await expect(page.getByTestId('chosen').locator('li')).toHaveCount(10);
    await page.getByTestId('upload-submit').click();
    const items = page.getByTestId('upload-item');
    await expect(items).toHaveCount(10);
    await expect(items.and(page.locator('[data-phase=done]'))).toHaveCount(9);
    await expect(items.and(page.locator('[data-phase=failed]')).getByTestId('error-message')).toContainText('text');
    await visit(page, '/');
    await expect(page.getByTestId('session-row')).toHaveCount(9);
    await expect(page.locator('[data-testid=state][data-state=completed]')).toHaveCount(9);
  });

  test('a slow upload shows its progress, and can be cancelled and tried again', async ({ page, context }, info) => {
    const file = info.outputPath('long.wav');
    await writeFile(file, tone(150));
    await visit(page, '/upload');
    const devtools = await context.newCDPSession(page);
    const setThroughput = (uploadThroughput: number) =>
      devtools.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput });
    await setThroughput(600_000);
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
    await setThroughput(-1);
    await page.getByTestId('retry').click();
    await page.waitForURL(/\/sessions\//);
    await expectState(page, 'completed', 60_000);
  });

  test('a recording can be dropped on the page', async ({ page }) => {
    await visit(page, '/upload');
    const base64 = tone(2).toString('base64');
    const dropped = await page.evaluateHandle(base64 => {
      const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], 'dropped.wav', { type: 'audio/wav' }));
      return transfer;
    }, base64);
    const zone = page.locator('label.drop');
    await zone.dispatchEvent('dragover', { dataTransfer: dropped });
    await expect(zone).toHaveClass(/over/);
    await zone.dispatchEvent('drop', { dataTransfer: dropped });
    await expect(page.getByTestId('chosen')).toContainText('dropped.wav');
    await page.getByTestId('title-input').fill('A drop');
    await page.getByTestId('upload-submit').click();
    await page.waitForURL(/\/sessions\//);
    await expect(page.getByTestId('session-title')).toHaveText('A drop');
    await expectState(page, 'completed', 60_000);
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
