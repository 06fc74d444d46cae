// Every page in light and dark, narrow and wide: no accessibility violation and no horizontal overflow; a screenshot of each
// is written to artifacts/screenshots for people to check.
import { readFile, writeFile } from 'node:fs/promises';
import { expect, expectGoodLooks, test, visit } from './fixtures.ts';
import { create, waitForEnd } from './sessions.ts';
import { clip } from './speech.ts';


for (const colorScheme of ['light', 'dark'] as const) {
  for (const width of [390, 1280]) {
    test.describe(`${colorScheme} ${width}`, () => {
      test.use({ colorScheme, viewport: { width, height: 800 } });

      test(`every page is accessible and fits the window, ${colorScheme}, ${width} wide`, async ({ page, allow }, info) => {
        allow(/status of (404|422|500)/);
        const check = (name: string) => expectGoodLooks(page, `${name}-${colorScheme}-${width}`);
        await visit(page, '/');
        await check('list-empty');
        await visit(page, '/upload');
        await check('upload');
        await visit(page, '/models');
        await expect(page.getByTestId('model').filter({ hasText: 'large-v3-turbo' }).first()).toBeVisible();
        await check('models');
        await visit(page, '/no/such/page');
        await check('not-found');

        const id = await create(page, clip('wav'));
        await visit(page, `/sessions/${id}`);
        await expect(page.getByTestId('segment').first()).toBeVisible({ timeout: 60_000 });
        await check('session-running');
        await visit(page, '/');
        await check('list-running');
        expect(await waitForEnd(page, id)).toBe('completed');
        await visit(page, `/sessions/${id}`);
        await check('session-completed');
        // What it came to, on one line.
        const lines = await page.getByTestId('outcome').evaluate(e => e.clientHeight / parseFloat(getComputedStyle(e).lineHeight));
        expect(lines).toBeLessThan(1.5);
        await page.getByTestId('rename').click();
        await check('session-rename');
        await page.getByTestId('rename').click();
        await page.emulateMedia({ media: 'print' });
        for (const part of ['find', 'find-next', 'rename', 'player', 'status-card']) await expect(page.getByTestId(part)).toBeHidden();
        await page.screenshot({ path: `artifacts/screenshots/session-print-${colorScheme}-${width}.png`, fullPage: true });
        await page.emulateMedia({ media: 'screen' });
        await visit(page, '/');
        await check('list');
        // The name of its model is longer than the line.
        await page.route('**/api/get_session*', async route => {
          const response = await route.fetch();
          const detail = await response.json();
          detail.transcript.session.model = 'large-v3-turbo-q5_0-fine-tuned-on-old-recordings';
          await route.fulfill({ response, json: detail });
        });
        await page.getByTestId('session-title').first().click();
        await expect(page.getByTestId('outcome')).toContainText('fine-tuned');
        const [card, toggle] = [page.getByTestId('status-card'), page.getByTestId('status-toggle')];
        const right = (part: typeof card) => part.evaluate(e => e.getBoundingClientRect().right);
        expect(await right(toggle), 'the button is within the card').toBeLessThanOrEqual(await right(card));
        await check('session-long-model');
        await page.unroute('**/api/get_session*');
        await visit(page, '/');
        await page.emulateMedia({ media: 'print' });
        await expect(page.getByTestId('search')).toBeHidden();
        await page.emulateMedia({ media: 'screen' });
        const word = (await page.request.get(`/api/v1/sessions/${id}/transcript.txt`).then(r => r.text())).split(/\s/).find(w => w.length > 3);
        await visit(page, `/?q=${word}`);
        await expect(page.getByTestId('found-line').first()).toBeVisible();
        await check('list-found');
        await page.getByTestId('found-line').first().click();
        await expect(page.getByTestId('find-count')).toHaveText(/^1 of/);
        await page.getByTestId('download-settings').click();
        await check('session-found');

        // The head of a recording without its sound: only decoding finds that.
        const head = info.outputPath('head.wma');
        const whole = await readFile(clip('wma'));
        const sound = whole.indexOf(Buffer.from('3626b2758e66cf11a6d900aa0062ce6c', 'hex'));
        await writeFile(head, whole.subarray(0, sound + 50));
        const failed = await create(page, head);
        expect(await waitForEnd(page, failed)).toBe('failed');
        await visit(page, `/sessions/${failed}`);
        // The reason is shown once, and no empty element is visible.
        await expect(page.getByText('nothing recorded in it').filter({ visible: true })).toHaveCount(1);
        // Another attempt would find the same.
        await expect(page.getByTestId('retry')).toHaveCount(0);
        for (const part of ['message', 'waveform', 'transcript']) await expect(page.getByTestId(part)).toBeHidden();
        await check('session-failed');

        await visit(page, '/upload');
        const file = (name: string, buffer: Buffer) => ({ name, mimeType: 'audio/wav', buffer });
        await page.getByTestId('file-input').setInputFiles([file('a.wav', whole), file('b.wav', Buffer.from('no sound'))]);
        await check('upload-chosen');
        const drag = (type: string) =>
          page.evaluate(type => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([], 'a.wav'));
            document.querySelector('[data-testid=drop-target]')!.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
          }, type);
        await drag('dragenter');
        await expect(page.getByTestId('drop-target')).toBeVisible();
        await check('upload-drop');
        await drag('dragleave');
        await page.getByTestId('upload-submit').click();
        await expect(page.getByTestId('upload-item').getByTestId('error-message')).toBeVisible();
        await expect(page.locator('[data-testid=upload-item][data-phase=done]')).toHaveCount(1);
        await check('upload-queue');

        // The view of a page that couldn't be loaded.
        await page.route('**/api/list_sessions*', route => route.fulfill({ status: 500, body: 'no' }));
        await page.locator('.nav a[href="/"]').click();
        await expect(page.locator('.empty').getByTestId('error-message')).toBeVisible();
        await check('error');

        // Uploads under way, on the list.
        await page.unroute('**/api/list_sessions*');
        await page.route('**/api/v1/uploads', route => (route.request().method() === 'POST' ? undefined : route.continue()));
        await page.locator('.nav a[href="/upload"]').click();
        await page.getByTestId('file-input').setInputFiles([file('first.wav', whole), file('second.wav', whole)]);
        await page.getByTestId('upload-submit').click();
        await page.locator('.nav a[href="/"]').click();
        await expect(page.getByTestId('session-row').first()).toBeVisible();
        await expect(page.getByTestId('uploads-total')).toContainText('of 2 sent');
        await check('list-uploads');
      });
    });
  }
}
