// What can't be transcribed is refused with words that help, and nothing is left behind.
import { writeFile } from 'node:fs/promises';
import { expect, test, visit } from './fixtures.ts';

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

    test(`an unknown address leads back ${scripts ? 'with' : 'without'} scripts`, async ({ page, allow }) => {
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
