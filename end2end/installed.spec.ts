// The installed app: its manifest, the page that is shown without a server, what its service worker keeps and what never, updates,
// and recordings that are shared with it. Other tests run without service workers.
import { cp, mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type Page } from '@playwright/test';
import { expect, expectGoodLooks, test, visit } from './fixtures.ts';
import { expectState } from './sessions.ts';
import { NETWORK_ERRORS, slowEngine, startSession, tone } from './tones.ts';

const SITE = path.resolve(import.meta.dirname, '../target/site');
const HASHES = path.resolve(import.meta.dirname, process.env.HARK_BIN ?? '../target/released/hark', '../hash.txt');

test.use({ serviceWorkers: 'allow', harkEnv: slowEngine(0.02) });

interface Manifest {
  start_url: string;
  display: string;
  icons: { src: string; sizes: string; type: string; purpose?: string }[];
  shortcuts: { url: string }[];
  share_target: { action: string; method: string; enctype: string; params: { files: { name: string; accept: string[] }[] } };
}

/** Opens a page that the service worker has brought. */
async function visitInstalled(page: Page, url: string) {
  await visit(page, url);
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.waitForFunction(() => navigator.serviceWorker.controller?.state === 'activated');
  await visit(page, url);
}

/** What is kept in the browser: the path of each file, by the name of the cache. */
const kept = (page: Page) =>
  page.evaluate(async () => {
    const all: Record<string, string[]> = {};
    // By what they are: their hashes may be anything.
    const nameOf = (path: string) => path.replace(/\.[^/.]+(?=\.(css|js|wasm)$)/, '');
    for (const name of await caches.keys()) {
      all[name] = (await (await caches.open(name)).keys()).map(request => new URL(request.url).pathname);
      all[name]!.sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
    }
    return all;
  });

test('the browser finds nothing wrong with the manifest, and all that it names is there', async ({ page }) => {
  await visitInstalled(page, '/');
  const devtools = await page.context().newCDPSession(page);
  const { errors, url } = await devtools.send('Page.getAppManifest');
  expect(errors).toEqual([]);
  const { installabilityErrors } = await devtools.send('Page.getInstallabilityErrors');
  // The test's own window is a private one.
  expect(installabilityErrors.map(e => e.errorId).filter(id => id !== 'in-incognito')).toEqual([]);

  const answer = await page.request.get(url);
  expect(answer.headers()['content-type']).toBe('application/manifest+json');
  const manifest = (await answer.json()) as Manifest;
  expect(manifest.display).toBe('standalone');
  for (const { src, sizes, type } of manifest.icons) {
    const icon = await page.request.get(src);
    expect(icon.headers()['content-type'], src).toBe(type);
    if (type !== 'image/png') continue;
    const body = await icon.body();
    expect(`${body.readUInt32BE(16)}x${body.readUInt32BE(20)}`, src).toBe(sizes);
  }
  const icons = manifest.icons.map(icon => `${icon.sizes} ${icon.purpose ?? 'any'}`);
  for (const needed of ['192x192 any', '512x512 any', '512x512 maskable']) expect(icons).toContain(needed);
  for (const address of [manifest.start_url, ...manifest.shortcuts.map(s => s.url)]) {
    expect((await visit(page, address))!.status(), address).toBe(200);
  }
  for (const file of ['/service-worker.js', '/manifest.webmanifest', '/offline.html']) {
    const { headers, status } = await page.request.get(file).then(r => ({ headers: r.headers(), status: r.status() }));
    expect([status, headers['cache-control'], headers['set-cookie']], file).toEqual([200, 'no-cache', undefined]);
  }
});

test('without a server there is a page that says so, and nothing that is live was kept', async ({ page, hark, allow }) => {
  allow(NETWORK_ERRORS);
  await visitInstalled(page, '/');
  const id = await startSession(page, 30);
  await expectState(page, 'completed', 60_000);
  await visit(page, '/upload');
  await page.request.get(`/api/v1/sessions/${id}`);
  await page.evaluate(id => fetch(`/api/v1/sessions/${id}`).then(r => r.json()), id);
  await expect.poll(() => kept(page)).toEqual({
    'hark-1': ['/offline.html', ...['css', 'js', 'wasm'].map(kind => expect.stringMatching(new RegExp(`^/pkg/hark\\.[^./]+\\.${kind}$`)))],
  });

  await hark.stop();
  await page.goto(`/sessions/${id}`);
  await expect(page.getByRole('heading', { name: 'Hark can\'t be reached' })).toBeVisible();
  expect(new URL(page.url()).pathname).toBe(`/sessions/${id}`);
  await page.emulateMedia({ colorScheme: 'dark' });
  await expectGoodLooks(page, 'offline-dark');
  await page.emulateMedia({ colorScheme: 'light' });
  await expectGoodLooks(page, 'offline-light');
  // A form isn't answered by that page, nor is a download.
  expect(await page.evaluate(() => fetch('/api/v1/sessions').then(() => true, () => false))).toBe(false);

  // The page finds the server again by itself.
  await hark.restart();
  await expect(page.getByTestId('segment')).toHaveCount(30, { timeout: 30_000 });
});

/** Makes the next release: the same files under other names, and another service worker if that is to change. */
async function nextRelease(folder: string, newWorker: boolean) {
  const site = path.join(folder, 'site');
  await mkdir(site, { recursive: true });
  await cp(SITE, site, { recursive: true });
  let hashes = await readFile(HASHES, 'utf8');
  for (const [, kind, hash] of hashes.matchAll(/^\s*(\w+)\s*:\s*(\S+)\s*$/gm)) {
    for (const name of await readdir(path.join(site, 'pkg'))) {
      if (name.includes(`.${hash}.`)) await rename(path.join(site, 'pkg', name), path.join(site, 'pkg', name.replace(hash!, `next-${kind}`)));
    }
    hashes = hashes.replace(hash!, `next-${kind}`);
  }
  const names = path.join(folder, 'hash.txt');
  await writeFile(names, hashes);
  if (newWorker) {
    const worker = path.join(site, 'service-worker.js');
    // Compressed beforehand from the one that is changed now.
    for (const kind of ['br', 'gz']) await rm(`${worker}.${kind}`, { force: true });
    await writeFile(worker, (await readFile(worker, 'utf8')).replace('"hark-1"', '"hark-2"'));
  }
  return { LEPTOS_SITE_ROOT: site, LEPTOS_HASH_FILE: names };
}

for (const newWorker of [false, true]) {
  test(`an update with ${newWorker ? 'another' : 'the same'} service worker reaches the page at once, and nothing older is kept`, async ({ page, hark, allow }, info) => {
    allow(NETWORK_ERRORS);
    await visitInstalled(page, '/');
    await expect.poll(async () => (await kept(page))['hark-1']?.length).toBe(4);
    const before = (await kept(page))['hark-1']!;
    const release = await nextRelease(info.outputPath('next'), newWorker);
    await hark.stop();
    await hark.restart(release);

    await visit(page, '/');
    const loaded = await page.evaluate(() => performance.getEntriesByType('resource').map(e => new URL(e.name).pathname));
    expect(loaded).toContain('/pkg/hark.next-wasm.wasm');
    expect(loaded.filter(name => before.includes(name))).toEqual([]);
    const cache = newWorker ? 'hark-2' : 'hark-1';
    await expect.poll(async () => Object.keys(await kept(page))).toEqual([cache]);
    // A new service worker has seen no file yet.
    if (newWorker) await visit(page, '/upload');
    const expected = ['/offline.html', '/pkg/hark.next-css.css', '/pkg/hark.next-js.js', '/pkg/hark.next-wasm.wasm'];
    await expect.poll(async () => (await kept(page))[cache]!.filter(name => before.includes(name) && name !== '/offline.html')).toEqual([]);
    if (!newWorker) expect((await kept(page))[cache]).toEqual(expected);
  });
}

test('a recording that is shared with the app becomes a session', async ({ page }) => {
  await visitInstalled(page, '/');
  const { share_target: target } = (await (await page.request.get('/manifest.webmanifest')).json()) as Manifest;
  expect([target.method, target.enctype]).toEqual(['POST', 'multipart/form-data']);
  const [files] = target.params.files;
  // What a system sends when somebody picks Hark: the form of the manifest, as a new page.
  const share = (buffer: Buffer, mimeType: string) =>
    page.request.post(target.action, {
      headers: { accept: 'text/html,*/*;q=0.8', 'sec-fetch-site': 'none', 'sec-fetch-mode': 'navigate' },
      multipart: { [files.name]: { name: 'Voice 001.wav', mimeType, buffer } },
      maxRedirects: 0,
    });
  const answer = await share(tone(2), 'audio/wav');
  expect(answer.status()).toBe(303);
  await visit(page, answer.headers().location);
  await expect(page.getByTestId('session-title')).toHaveText('Voice 001.wav');
  await expectState(page, 'completed', 60_000);
  // What can't be read is told on the upload page.
  const refused = await share(Buffer.from('no sound'), 'audio/wav');
  expect([refused.status(), refused.headers().location]).toEqual([303, '/upload']);
  await visit(page, '/upload');
  await expect(page.getByTestId('error-message').first()).toContainText('text');
});
