// Uploads that break off and go on from where they were: the network goes, the server is killed, the page is loaded again; and files
// that were sent before.
import { writeFile } from 'node:fs/promises';
import { type CDPSession, type Page, type TestInfo } from '@playwright/test';
import { expect, expectGoodLooks, test, visit } from './fixtures.ts';
import { expectState } from './sessions.ts';
import { NETWORK_ERRORS, slowEngine, tone } from './tones.ts';

test.use({ harkEnv: slowEngine(0) });

/** A way to slow the page's network down to so many bytes per second, -1 for as fast as can be, and to cut it. */
async function network(page: Page) {
  const devtools: CDPSession = await page.context().newCDPSession(page);
  const set = (uploadThroughput: number, offline = false) =>
    devtools.send('Network.emulateNetworkConditions', { offline, latency: 0, downloadThroughput: -1, uploadThroughput });
  return { slow: () => set(700_000), fast: () => set(-1), cut: () => set(-1, true) };
}

/** Notes where each part begins that the page sends, and how many uploads it begins. */
function watchParts(page: Page) {
  const seen = { begun: 0, offsets: [] as number[] };
  page.on('request', request => {
    if (!request.url().includes('/api/v1/uploads')) return;
    if (request.method() === 'POST') seen.begun += 1;
    if (request.method() === 'PATCH') seen.offsets.push(Number(request.headers()['upload-offset']));
  });
  return seen;
}

/** Opens the upload page with a slow network, chooses a recording of 4.8 MB and begins to send it. Waits until a part of it is there. */
async function beginUpload(page: Page, info: TestInfo, title = '') {
  const [file, recording] = [info.outputPath('long.wav'), tone(150)];
  await writeFile(file, recording);
  await visit(page, '/upload');
  const [line, parts] = [await network(page), watchParts(page)];
  await line.slow();
  await page.getByTestId('title-input').fill(title);
  await page.getByTestId('file-input').setInputFiles(file);
  await page.getByTestId('upload-submit').click();
  await expect.poll(() => percent(page)).toBeGreaterThan(15);
  return { file, recording, line, parts };
}

const percent = async (page: Page) => Number(await page.getByTestId('upload-progress').getAttribute('aria-valuenow'));

/** Notes what screen readers are told. */
async function listen(page: Page) {
  await page.evaluate(() => {
    const announcer = document.querySelector('[data-testid=announcer]')!;
    const said: string[] = ((window as any).said = []);
    new MutationObserver(() => said.push(announcer.textContent!)).observe(announcer, { childList: true });
  });
  return () => page.evaluate(() => ((window as any).said as string[]).filter(text => text !== ''));
}

/** Checks that the page shows the session of this recording. */
async function expectRecording(page: Page, recording: Buffer) {
  await page.waitForURL(/\/sessions\//);
  const id = page.url().split('/').pop();
  const audio = await (await page.request.get(`/api/v1/sessions/${id}/audio`)).body();
  expect(audio.equals(recording), 'what was sent has arrived').toBe(true);
  await expectState(page, 'completed', 60_000);
}

test('an upload goes on by itself when the network is back', async ({ page, allow }, info) => {
  allow(NETWORK_ERRORS);
  const { recording, line, parts } = await beginUpload(page, info);
  const said = await listen(page);
  await line.cut();
  const details = page.getByTestId('upload-details');
  await expect(details).toContainText('The connection broke');
  const before = await percent(page);
  expect(before).toBeGreaterThan(15);
  await expect(page.getByTestId('upload-item')).toHaveAttribute('data-phase', 'sending');
  await expect.poll(said).toEqual(['The connection broke. The upload goes on as soon as it is back.']);
  await line.slow();
  await expect.poll(said).toHaveLength(2);
  expect((await said())[1]).toBe('The connection is back, and the upload goes on.');
  await line.fast();
  await expectRecording(page, recording);
  // Only the part that was cut was sent twice, if at all.
  expect(parts.begun).toBe(1);
  expect(parts.offsets.filter(offset => offset === 0)).toHaveLength(1);
  expect(parts.offsets.length - new Set(parts.offsets).size, `${parts.offsets}`).toBeLessThanOrEqual(1);
});

test('an upload goes on after the server was killed', async ({ page, hark, allow }, info) => {
  allow(NETWORK_ERRORS);
  const { recording, line, parts } = await beginUpload(page, info);
  await hark.kill();
  await expect(page.getByTestId('upload-details')).toContainText('The connection broke');
  await hark.restart();
  await line.fast();
  await expectRecording(page, recording);
  expect(parts.begun).toBe(1);
  expect(parts.offsets.filter(offset => offset === 0)).toHaveLength(1);
});

test('an upload goes on after the page was loaded again, when the file is chosen again', async ({ page, allow }, info) => {
  allow(NETWORK_ERRORS);
  const other = info.outputPath('other.wav');
  await writeFile(other, tone(1));
  page.on('dialog', dialog => void dialog.accept());
  const { file, recording, line, parts } = await beginUpload(page, info, 'A long talk');
  await visit(page, '/upload');
  await line.fast();
  const unfinished = page.getByTestId('unfinished');
  await expect(unfinished).toContainText('long.wav');
  await expect(unfinished).toContainText('Choose a file again');
  const share = await page.getByTestId('unfinished-share').textContent();
  expect(share).toMatch(/^\d+% of 4\.8 MB sent$/);
  expect(parseInt(share!)).toBeGreaterThan(15);
  const sentBefore = parts.offsets.length;
  // Another file is just chosen.
  await page.getByTestId('file-input').setInputFiles(other);
  await expect(page.getByTestId('chosen')).toContainText('other.wav');
  await page.getByTestId('unchoose').click();
  // This one goes on at once, with its title.
  await page.getByTestId('file-input').setInputFiles(file);
  await expectRecording(page, recording);
  await expect(page.getByTestId('session-title')).toHaveText('A long talk');
  expect(parts.begun).toBe(1);
  expect(parts.offsets[sentBefore]).toBeGreaterThan(0);
  await visit(page, '/upload');
  await expect(unfinished).toHaveCount(0);
});

test('the list tells of an upload that is not finished, and of what another tab does with it', async ({ page, context, allow }, info) => {
  allow(NETWORK_ERRORS);
  page.on('dialog', dialog => void dialog.accept());
  const { file, line } = await beginUpload(page, info);
  await visit(page, '/');
  const unfinished = page.getByTestId('unfinished');
  await expect(unfinished).toContainText('long.wav');
  await expect(page.getByTestId('empty')).toHaveCount(0);
  await expectGoodLooks(page, 'list-unfinished');

  const other = await context.newPage();
  await visit(other, '/');
  const share = async () => parseInt((await other.getByTestId('unfinished-share').textContent())!);
  const before = await share();
  expect(before).toBeGreaterThan(15);
  await unfinished.getByRole('link', { name: 'Choose a file again' }).click();
  await page.waitForURL('/upload');
  await page.getByTestId('file-input').setInputFiles(file);
  await expect.poll(share).toBeGreaterThan(before);
  await line.fast();
  await page.waitForURL(/\/sessions\//);
  await expect(other.getByTestId('unfinished')).toHaveCount(0);
});

test('an upload that is not wanted any more is removed', async ({ page, allow }, info) => {
  allow(NETWORK_ERRORS);
  page.on('dialog', dialog => void dialog.accept());
  const begun = page.waitForResponse(response => response.request().method() === 'POST' && response.url().endsWith('/api/v1/uploads'));
  const { line } = await beginUpload(page, info);
  const address = (await begun).headers()['location']!;
  await visit(page, '/upload');
  await line.fast();
  expect((await page.request.get(address)).status()).toBe(200);
  await page.getByTestId('forget').press('Enter');
  await expect(page.getByTestId('unfinished')).toHaveCount(0);
  await expect(page.getByTestId('file-input')).toBeFocused();
  await expect.poll(async () => (await page.request.get(address)).status()).toBe(404);
  await visit(page, '/upload');
  await expect(page.getByTestId('unfinished')).toHaveCount(0);
});

test('a file that was sent before is offered, and sent again only if it is wanted', async ({ page }, info) => {
  const [file, recording] = [info.outputPath('talk.wav'), tone(3)];
  await writeFile(file, recording);
  await visit(page, '/upload');
  const parts = watchParts(page);
  const send = async () => {
    await page.getByTestId('file-input').setInputFiles(file);
    await page.getByTestId('upload-submit').click();
  };
  await send();
  await expectRecording(page, recording);
  const first = new URL(page.url()).pathname;
  await page.locator('.nav a[href="/upload"]').click();
  const sent = parts.offsets.length;
  const said = await listen(page);
  await send();
  const item = page.getByTestId('upload-item');
  await expect(item).toHaveAttribute('data-phase', 'sent-before');
  await expect(item).toContainText('You have sent this file before');
  await expect.poll(said).toEqual(["talk.wav: You have sent this file before. It wasn't sent again."]);
  await expect(item.getByTestId('state')).toHaveAttribute('data-state', 'completed');
  await expect(item.getByTestId('upload-session')).toHaveAttribute('href', first);
  expect(parts.offsets.length, 'nothing was sent').toBe(sent);
  await expect(item.getByTestId('retry')).toHaveText('Send again talk.wav');
  await item.getByTestId('retry').click();
  await expectRecording(page, recording);
  expect(new URL(page.url()).pathname).not.toBe(first);
});

test.describe('where the browser computes no hashes, as over plain http', () => {
  test('a file is sent as often as somebody sends it', async ({ page }, info) => {
    const [file, recording] = [info.outputPath('talk.wav'), tone(3)];
    await writeFile(file, recording);
    await page.addInitScript(() => Object.defineProperty(crypto, 'subtle', { value: undefined }));
    const pages = new Set<string>();
    for (let n = 0; n < 2; n++) {
      await visit(page, '/upload');
      await page.getByTestId('file-input').setInputFiles(file);
      await page.getByTestId('upload-submit').click();
      await expectRecording(page, recording);
      pages.add(page.url());
    }
    expect(pages.size).toBe(2);
  });
});

test('an answer that is not the server\'s does not end an upload', async ({ page, allow }, info) => {
  allow(NETWORK_ERRORS);
  const { recording, line, parts } = await beginUpload(page, info);
  // As of a network that wants a login, and of a proxy that finds nothing.
  for (const status of [200, 404]) {
    await page.route('**/api/v1/uploads/*', route => route.fulfill({ status, contentType: 'text/html', body: '<h1>Welcome</h1>' }));
    await expect(page.getByTestId('upload-details')).toContainText('The connection broke', { timeout: 30_000 });
    await page.unroute('**/api/v1/uploads/*');
    await expect(page.getByTestId('upload-details')).not.toContainText('The connection broke', { timeout: 30_000 });
  }
  await line.fast();
  await expectRecording(page, recording);
  expect(parts.begun).toBe(1);
  expect(parts.offsets.filter(offset => offset === 0)).toHaveLength(1);
});
