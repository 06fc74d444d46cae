// The page of models where visitors may download them: the progress comes over Hark's own stream, or by polling where no
// stream delivers, and without JavaScript the page reloads itself.
import { createServer, type Server } from 'node:http';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, freePort, test, visit } from './fixtures.ts';

const TOOLS = process.env.HARK_TOOLS ?? path.join(process.env.CARGO_HOME ?? path.join(process.env.HOME!, '.cargo'), 'hark');
const port = await freePort();
let files: Server;
let release: () => void;

test.beforeEach(async () => {
  const model = readFileSync(path.join(TOOLS, 'models/ggml-tiny.en.bin'));
  const gate = new Promise<void>(resolve => (release = resolve));
  files = createServer((request, response) => {
    if (request.url !== '/ggml-mine.bin') return void response.writeHead(404).end();
    response.writeHead(200, { 'content-length': model.length });
    response.write(model.subarray(0, model.length / 2));
    // The second half comes when the test wants it.
    void gate.then(() => response.end(model.subarray(model.length / 2)));
  });
  await new Promise<void>(resolve => files.listen(port, '127.0.0.1', resolve));
});

test.afterEach(() => {
  release();
  files.closeAllConnections();
  files.close();
});

test.use({
  harkEnv: {
    HARK_WHISPER_MODEL: 'mine',
    HARK_MODEL_SOURCES: 'mirror',
    HARK_MODEL_URL: `http://127.0.0.1:${port}`,
    HARK_MODEL_CHANGES_BY_VISITORS: 'true',
  },
});

for (const streams of [true, false]) {
  test(`the progress of a download is shown ${streams ? 'as it comes' : 'by polling'}`, async ({ page, allow }) => {
    if (!streams) {
      allow(/Failed to load resource/);
      await page.route('**/api/v1/models/stream', route => route.abort());
    }
    const opened = page.waitForRequest('**/api/v1/models/stream');
    await visit(page, '/models');
    const mine = page.locator('[data-testid=model][data-name=mine]');
    await mine.getByTestId('model-get').click();
    await expect(mine.getByTestId('model-progress')).toHaveAttribute('aria-valuenow', /^(49|50)$/);
    await opened;
    await expect(mine.getByTestId('model-get')).toBeHidden();
    release();
    await expect(mine).toContainText('in use');
    await expect(mine.getByTestId('model-download')).toHaveCount(0);
  });
}

test.describe('without scripts', () => {
  test.use({ javaScriptEnabled: false });
  test('a model is downloaded', async ({ page }) => {
    await page.goto('/models');
    const mine = page.locator('[data-testid=model][data-name=mine]');
    await mine.getByTestId('model-get').click();
    await expect(mine.getByTestId('model-progress')).toBeVisible();
    release();
    // The test doesn't reload the page: the page reloads itself.
    await expect(mine).toContainText('in use');
  });
});
