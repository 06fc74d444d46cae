// What must work in every browser engine, and not only in Chromium, in which all other tests run: the main path, each way to get
// updates, tabs, and browsers that lack something. Run in Firefox and in WebKit.
import { rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import webdriver, { type WebDriver } from 'selenium-webdriver';
import { cookies, expect, expectLook, look, open, record, recorded, test } from './engines.ts';
import { type Hark } from './fixtures.ts';
import { startInjector } from './injector.ts';
import { BUFFERING, startNginx } from './nginx.ts';
import { slowEngine, tone } from './tones.ts';

const { By } = webdriver;
const TOKEN = 'a-token-of-the-tests';
const SECONDS = 8;
const LINES = Array.from({ length: SECONDS }, (_, n) => `0:${String(n).padStart(2, '0')}`);

test.use({ harkEnv: { ...slowEngine(0.5, ',leader=2000'), HARK_WORKER_TOKEN: TOKEN } });

const find = (driver: WebDriver, id: string) => driver.findElement(By.css(`[data-testid=${id}]`));

/** Uploads a recording on the upload page and waits for its session's page. */
async function upload(driver: WebDriver, url: string, info: { testId: string }) {
  const file = path.join(tmpdir(), `hark-tone-${process.pid}-${info.testId}.wav`);
  await writeFile(file, tone(SECONDS));
  try {
    await find(driver, 'file-input').sendKeys(file);
    const submit = await find(driver, 'upload-submit');
    // WebKit's driver can't click what it would have to scroll to.
    await driver.executeScript((button: Element) => button.scrollIntoView(), submit);
    await submit.click();
    await expect.poll(() => driver.getCurrentUrl()).toMatch(/\/sessions\/[0-9a-f-]{36}$/);
  } finally {
    await rm(file);
  }
}

/** Uploads a recording and watches its page until it is done. Returns what the page showed, with every change. */
async function watch(driver: WebDriver, url: string, info: { testId: string }) {
  await open(driver, `${url}/upload`);
  await upload(driver, url, info);
  await record(driver);
  await expectLook(driver, { state: 'completed', lines: LINES }, 60_000);
  const samples = await recorded(driver);
  expect(samples, 'the page was not loaded again').not.toBeNull();
  const progress = samples!.map(sample => sample.progress).filter(p => p !== null);
  expect(progress, 'progress never falls').toEqual([...progress].sort((a, b) => a - b));
  expect(samples!.some(s => s.state === 'processing' && s.lines > 0), 'lines come while it is processed').toBe(true);
  return samples!;
}

test('a recording is uploaded and watched until it is done', async ({ driver, hark }, info) => {
  const problems = `window.problems = []; for (const kind of ['error', 'unhandledrejection'])
    addEventListener(kind, event => problems.push(String(event.message ?? event.reason)))`;
  const injector = await startInjector(hark.url, problems);
  try {
    const samples = await watch(driver, injector.url, info);
    expect(samples.some(s => s.badge === 'live'), 'updates come by a stream').toBe(true);
    expect(await driver.executeScript(() => (window as any).problems)).toEqual([]);
    // The app's two files were fetched once, by a browser that had nothing in its cache.
    expect([/^\/pkg\/.*\.wasm$/, /^\/pkg\/.*\.js$/].map(file => injector.requests(file))).toEqual([1, 1]);
    // Loaded again, the page shows the same.
    await open(driver, await driver.getCurrentUrl());
    expect((await look(driver))?.lines).toEqual(LINES);
  } finally {
    await injector.stop();
  }
});

test('without EventSource the page polls', async ({ driver, hark }, info) => {
  const injector = await startInjector(hark.url, 'delete window.EventSource');
  try {
    const samples = await watch(driver, injector.url, info);
    expect(samples.some(s => s.badge === 'polling'), 'the badge says Polling').toBe(true);
    expect(samples.some(s => s.badge === 'live'), 'the badge never says Live').toBe(false);
    expect(injector.requests(/\/stream/)).toBe(0);
  } finally {
    await injector.stop();
  }
});

test('behind a proxy that buffers the page gets there', async ({ driver, hark }, info) => {
  const proxy = await startNginx(hark.url, BUFFERING);
  try {
    await watch(driver, proxy.url, info);
  } finally {
    await proxy.stop();
  }
});

test('without WebAssembly the page is loaded again and again until it is done', async ({ driver, hark }, info) => {
  const injector = await startInjector(hark.url, 'delete window.WebAssembly');
  try {
    await driver.get(`${injector.url}/upload`);
    await upload(driver, injector.url, info);
    await expect.poll(async () => (await look(driver))?.text ?? '').toContain('This page reloads every 3 seconds.');
    await expectLook(driver, { state: 'completed', lines: LINES, hydrated: false }, 60_000);
  } finally {
    await injector.stop();
  }
});

test('without Web Locks and BroadcastChannel every tab gets there by itself', async ({ driver, hark }, info) => {
  const lacking = 'delete Navigator.prototype.locks; delete window.BroadcastChannel';
  const injector = await startInjector(hark.url, lacking);
  try {
    const samples = await watch(driver, injector.url, info);
    expect(samples.some(s => s.badge === 'live'), 'updates come by a stream').toBe(true);
    const page = await driver.getCurrentUrl();
    await driver.switchTo().newWindow('tab');
    await open(driver, page);
    await expectLook(driver, { state: 'completed', lines: LINES });
    expect(await driver.executeScript(() => 'locks' in navigator || 'BroadcastChannel' in window)).toBe(false);
  } finally {
    await injector.stop();
  }
});

test('three tabs share one stream, and another tab goes on when one is closed', async ({ driver, hark }) => {
  await open(driver, hark.url);
  const worker = { Authorization: `Bearer ${TOKEN}`, 'Content-Type': 'application/json' };
  const created = await fetch(`${hark.url}/api/v1/sessions`, {
    method: 'POST',
    headers: { ...worker, Cookie: await cookies(driver) },
    body: JSON.stringify({ title: 'A meeting', duration_total: 600 }),
  });
  expect(created.status).toBe(201);
  const { id } = (await created.json()) as { id: string };
  const report = async (progress: number) => {
    const body = JSON.stringify({ stage: 'transcribing', progress });
    const answer = await fetch(`${hark.url}/api/v1/sessions/${id}/status`, { method: 'PUT', headers: worker, body });
    expect(answer.status).toBe(200);
  };
  await report(10);
  const tabs: string[] = [];
  for (let n = 0; n < 3; n++) {
    if (n > 0) await driver.switchTo().newWindow('tab');
    await open(driver, `${hark.url}/sessions/${id}`);
    await expectLook(driver, { percent: '10%', badge: 'live' });
    tabs.push(await driver.getWindowHandle());
  }
  await expectStreams(hark, 1);
  const allShow = async (percent: number) => {
    await report(percent);
    for (const tab of tabs) {
      await driver.switchTo().window(tab);
      await expectLook(driver, { percent: `${percent}%` });
    }
  };
  await allShow(20);
  await driver.switchTo().window(tabs.shift()!);
  await driver.close();
  await allShow(30);
  await expectStreams(hark, 1);
});

function expectStreams(hark: Hark, count: number) {
  const streams = async () => {
    const text = await (await fetch(`${hark.url}/metrics`)).text();
    const lines = text.split('\n').filter(line => line.startsWith('hark_streams_open{'));
    return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  };
  return expect.poll(streams).toBe(count);
}
