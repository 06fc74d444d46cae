// Many tabs of one browser: browsers allow six connections to a server over HTTP/1.1, so one stream serves them all.
import { type Page } from '@playwright/test';
import { expect, test, visit, type Hark } from './fixtures.ts';

const TOKEN = 'a-token-of-the-tests';
const AUTHORIZED = { Authorization: `Bearer ${TOKEN}` };

test.use({ harkEnv: { HARK_WORKER_TOKEN: TOKEN, HARK_LINK_TIMING: 'leader=2000' } });

/** Makes a session of the page's owner that a worker outside Hark reports on. Returns its id. */
async function outside(page: Page, title: string): Promise<string> {
  const response = await page.request.post('/api/v1/sessions', { headers: AUTHORIZED, data: { title, duration_total: 600 } });
  expect(response.status()).toBe(201);
  const { id } = (await response.json()) as { id: string };
  await report(page, id, { stage: 'transcribing', progress: 1 });
  return id;
}

async function report(page: Page, id: string, status: object) {
  const response = await page.request.put(`/api/v1/sessions/${id}/status`, { headers: AUTHORIZED, data: status });
  expect(response.status(), await response.text()).toBeLessThan(300);
}

/** A figure of the server's metrics, over all labels. */
async function metric(hark: Hark, name: string): Promise<number> {
  const text = await (await fetch(`${hark.url}/metrics`)).text();
  const lines = text.split('\n').filter(line => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

const streams = (hark: Hark) => expect.poll(() => metric(hark, 'hark_streams_open'));

const live = (page: Page) => expect(page.getByTestId('badge')).toHaveAttribute('data-mode', 'live');

test('ten tabs on fifty sessions hold one stream, and hand it over when its tab is closed', async ({ page, context, hark }) => {
  await visit(page, '/');
  const ids: string[] = [];
  for (let n = 0; n < 50; n++) ids.push(await outside(page, `Meeting ${n}`));

  await visit(page, '/');
  const tabs = [page];
  for (let n = 1; n < 10; n++) {
    const tab = await context.newPage();
    await visit(tab, n % 3 === 0 ? '/' : `/sessions/${ids[n]}`);
    tabs.push(tab);
  }
  for (const tab of tabs) await live(tab);
  await streams(hark).toBe(1);

  const everyTabShows = async (among: Page[], from: number, progress: number) => {
    for (const [n, id] of ids.entries()) if (n < 10) await report(page, id, { stage: 'transcribing', progress });
    for (const [n, tab] of among.entries()) {
      if (new URL(tab.url()).pathname === '/') continue;
      await expect(tab.getByTestId('percent'), `tab ${n + from}`).toHaveText(`${progress}%`);
    }
  };
  await everyTabShows(tabs, 0, 20);

  // Navigation inside the app and by loading a page works while the stream is held.
  await tabs[3].goto('/upload');
  await visit(tabs[3], `/sessions/${ids[3]}`);
  await live(tabs[3]);
  await expect(tabs[3].getByTestId('percent')).toHaveText('20%');

  // A session that is made while only another tab looks turns up in every list.
  await outside(tabs[1], 'A late one');
  await expect(tabs[6].getByRole('link', { name: 'A late one' })).toBeVisible();

  const opened = await metric(hark, 'hark_streams_opened_total');
  const closed = Date.now();
  await page.close();
  await expect.poll(() => metric(hark, 'hark_streams_opened_total'), { intervals: [50] }).toBeGreaterThan(opened);
  test.info().annotations.push({ type: 'handed over after', description: `${Date.now() - closed} ms` });
  const [, ...left] = tabs;
  for (const tab of left) await live(tab);
  await streams(hark).toBe(1);
  for (const id of ids.slice(0, 10)) await report(left[0], id, { stage: 'transcribing', progress: 30 });
  for (const tab of left.filter(tab => tab.url().includes('/sessions/'))) {
    await expect(tab.getByTestId('percent')).toHaveText('30%');
  }

  // With the last session's end nothing is open any more.
  for (const tab of left.slice(1)) await tab.close();
  await visit(left[0], `/sessions/${ids[1]}`);
  await streams(hark).toBe(1);
  await report(left[0], ids[1], { status: 'completed' });
  await expect(left[0].getByTestId('state')).toHaveAttribute('data-state', 'completed');
  await streams(hark).toBe(0);
});

test('a tab that is frozen while it holds the stream is not waited for', async ({ page, context, hark, allow }) => {
  allow(/Failed to load resource|ERR_|net::/);
  await visit(page, '/');
  const id = await outside(page, 'A meeting');
  await visit(page, `/sessions/${id}`);
  await live(page);
  const other = await context.newPage();
  await visit(other, `/sessions/${id}`);
  await live(other);
  await streams(hark).toBe(1);
  const devtools = await context.newCDPSession(page);
  await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
  await report(other, id, { stage: 'transcribing', progress: 50 });
  await expect(other.getByTestId('percent')).toHaveText('50%', { timeout: 60_000 });
  await live(other);
  await devtools.send('Page.setWebLifecycleState', { state: 'active' });
  await report(other, id, { stage: 'transcribing', progress: 60 });
  for (const tab of [page, other]) await expect(tab.getByTestId('percent')).toHaveText('60%');
  await streams(hark).toBe(1);
});

test('without Web Locks each tab that can be seen has a stream of its own', async ({ page, context, hark }) => {
  await context.addInitScript(() => delete (Navigator.prototype as any).locks);
  await visit(page, '/');
  const id = await outside(page, 'A meeting');
  await visit(page, `/sessions/${id}`);
  const other = await context.newPage();
  await visit(other, `/sessions/${id}`);
  for (const tab of [page, other]) await live(tab);
  await streams(hark).toBe(2);
  const see = (visibility: string) =>
    page.evaluate(visibility => {
      Object.defineProperty(document, 'visibilityState', { value: visibility, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, visibility);
  await see('hidden');
  await streams(hark).toBe(1);
  await report(other, id, { stage: 'transcribing', progress: 50 });
  await expect(other.getByTestId('percent')).toHaveText('50%');
  await see('visible');
  await streams(hark).toBe(2);
  await expect(page.getByTestId('percent')).toHaveText('50%');
});
