// Files that can't be transcribed are refused with a helpful message, and no session is left behind.
import { writeFile } from 'node:fs/promises';
import { expect, test, visit } from './fixtures.ts';
import { create } from './sessions.ts';
import { tone } from './tones.ts';

const FILES = [
  { name: 'empty.wav', content: '' },
  { name: 'notes.txt', content: 'This is not a recording.\n'.repeat(50) },
];

for (const scripts of [true, false]) {
  test.describe(scripts ? 'with scripts' : 'without scripts', () => {
    test.use({ javaScriptEnabled: scripts });

    for (const { name, content } of FILES) {
      test(`${name} is refused ${scripts ? 'with' : 'without'} scripts`, async ({ page, allow }, info) => {
        allow(/status of 4\d\d/);
        const file = info.outputPath(name);
        await writeFile(file, content);
        await visit(page, '/upload');
        await page.getByTestId('file-input').setInputFiles(file);
        await page.getByTestId('upload-submit').click();
        await expect(page.getByTestId('error-message').first()).toBeVisible();
        await expect(page.getByTestId('error-message').first()).not.toHaveText('');
        await visit(page, '/');
        await expect(page.getByTestId('session-row')).toHaveCount(0);
      });
    }

    test.describe('with a full queue', () => {
      // Without workers the queue stays full.
      test.use({ harkEnv: { HARK_WORKERS: '0', HARK_MAX_QUEUE_PER_OWNER: '1' } });

      test(`the page says when to try again ${scripts ? 'with' : 'without'} scripts`, async ({ page, allow }, info) => {
        allow(/status of 429/);
        const file = info.outputPath('silence.wav');
        await writeFile(file, tone(1));
        await visit(page, '/upload');
        const first = await create(page, file);
        // Another recording: the same one would be offered instead of sent.
        await writeFile(file, tone(2));
        await page.getByTestId('file-input').setInputFiles(file);
        await page.getByTestId('upload-submit').click();
        const refusal = page.getByTestId('error-message').first();
        await expect(refusal).toHaveText(/queue is full: its limit is 1 recording\. Try again in about 1 min/);
        await page.request.post(`/api/v1/sessions/${first}/cancel`);
        if (scripts) {
          // The retry button is next to the file, which needn't be chosen again.
          await page.getByTestId('upload-item').getByTestId('retry').click();
        } else {
          await page.getByTestId('file-input').setInputFiles(file);
          await page.getByTestId('upload-submit').click();
        }
        await page.waitForURL(/\/sessions\/[0-9a-f-]{36}$/);
        // The first session has lost its place in the queue to this one.
        await visit(page, `/sessions/${first}`);
        await page.getByTestId('retry').click();
        await expect(page.getByTestId('error-message').first()).toHaveText(/queue is full/);
      });
    });

    test(`an unknown address is a page with a link to the list ${scripts ? 'with' : 'without'} scripts`, async ({ page, allow }) => {
      allow(/status of 404/);
      const response = await visit(page, '/no/such/page');
      expect(response?.status()).toBe(404);
      await expect(page.locator('a[href="/"]').first()).toBeVisible();
    });

    test(`an unknown session is not found ${scripts ? 'with' : 'without'} scripts`, async ({ page, allow }) => {
      allow(/status of 404/);
      for (const id of ['01900000-0000-7000-8000-000000000000', 'nonsense']) {
        const response = await visit(page, `/sessions/${id}`);
        expect(response?.status(), id).toBe(404);
      }
    });
  });
}
