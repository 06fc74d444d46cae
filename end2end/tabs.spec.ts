// Many tabs of one browser share one stream, because browsers allow only six connections to a host over HTTP/1.1.
import { type Page } from '@playwright/test';
import { expect, test, visit, type Hark } from './fixtures.ts';

const TOKEN = 'a-token-of-the-tests';
const AUTHORIZED = { Authorization: `Bearer ${TOKEN}` };

test.use({ harkEnv: { HARK_WORKER_TOKEN: TOKEN, HARK_LINK_TIMING: 'leader=2000' } });

/** Makes a session of the page's owner that an outside worker reports on. Returns its id. */
async function createOutside(page: Page, title: string): Promise<string> {
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

/** A value of the server's metrics, summed over all labels. */
async function metric(hark: Hark, name: string): Promise<number> {
  const text = await (await fetch(`${hark.url}/metrics`)).text();
  const lines = text.split('\n').filter(line => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

const expectStreams = (hark: Hark) => expect.poll(() => metric(hark, 'hark_streams_open'));

const expectLive = (page: Page) => expect(page.getByTestId('badge')).toHaveAttribute('data-mode', 'live');

test('ten tabs on fifty sessions share one stream, and another tab opens one when the leader is closed', async ({ page, context, hark }) => {
  await visit(page, '/');
  const ids: string[] = [];
  for (let n = 0; n < 50; n++) ids.push(await createOutside(page, `Meeting ${n}`));

  await visit(page, '/');
  const tabs = [page];
  for (let n = 1; n < 10; n++) {
    const tab = await context.newPage();
    await visit(tab, n % 3 === 0 ? '/' : `/sessions/${ids[n]}`);
    tabs.push(tab);
  }
  for (const tab of tabs) await expectLive(tab);
  await expectStreams(hark).toBe(1);

  const everyTabShows = async (among: Page[], from: number, progress: number) => {
    for (const [n, id] of ids.entries()) if (n < 10) await report(page, id, { stage: 'transcribing', progress });
    for (const [n, tab] of among.entries()) {
      if (new URL(tab.url()).pathname === '/') continue;
      await expect(tab.getByTestId('percent'), `tab ${n + from}`).toHaveText(`${progress}%`);
    }
  };
  await everyTabShows(tabs, 0, 20);

  // Navigation within the app and the loading of pages work while the stream is open.
  await tabs[3].goto('/upload');
  await visit(tabs[3], `/sessions/${ids[3]}`);
  await expectLive(tabs[3]);
  await expect(tabs[3].getByTestId('percent')).toHaveText('20%');

  // A session made through another tab appears in every list.
  await createOutside(tabs[1], 'A late one');
  await expect(tabs[6].getByRole('link', { name: 'A late one' })).toBeVisible();

  const opened = await metric(hark, 'hark_streams_opened_total');
  const closed = Date.now();
  await page.close();
  await expect.poll(() => metric(hark, 'hark_streams_opened_total'), { intervals: [50] }).toBeGreaterThan(opened);
  test.info().annotations.push({ type: 'handed over after', description: `${Date.now() - closed} ms` });
  const [, ...remaining] = tabs;
  for (const tab of remaining) await expectLive(tab);
  await expectStreams(hark).toBe(1);
  for (const id of ids.slice(0, 10)) await report(remaining[0], id, { stage: 'transcribing', progress: 30 });
  for (const tab of remaining.filter(tab => tab.url().includes('/sessions/'))) {
    await expect(tab.getByTestId('percent')).toHaveText('30%');
  }

  // When the last session has ended, no stream is open.
  for (const tab of remaining.slice(1)) await tab.close();
  await visit(remaining[0], `/sessions/${ids[1]}`);
  await expectStreams(hark).toBe(1);
  await report(remaining[0], ids[1], { status: 'completed' });
  await expect(remaining[0].getByTestId('state')).toHaveAttribute('data-state', 'completed');
  await expectStreams(hark).toBe(0);
});

test('if the leading tab is frozen, another tab opens its own stream', async ({ page, context, hark, allow }) => {
  allow(/Failed to load resource|ERR_|net::/);
  await visit(page, '/');
  const id = await createOutside(page, 'A meeting');
  await visit(page, `/sessions/${id}`);
  await expectLive(page);
  const other = await context.newPage();
  await visit(other, `/sessions/${id}`);
  await expectLive(other);
  await expectStreams(hark).toBe(1);
  const devtools = await context.newCDPSession(page);
  await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
  await report(other, id, { stage: 'transcribing', progress: 50 });
  await expect(other.getByTestId('percent')).toHaveText('50%', { timeout: 60_000 });
  await expectLive(other);
  await devtools.send('Page.setWebLifecycleState', { state: 'active' });
  await report(other, id, { stage: 'transcribing', progress: 60 });
  for (const tab of [page, other]) await expect(tab.getByTestId('percent')).toHaveText('60%');
  await expectStreams(hark).toBe(1);
});

test('without Web Locks each visible tab has its own stream', async ({ page, context, hark }) => {
  await context.addInitScript(() => delete (Navigator.prototype as any).locks);
  await visit(page, '/');
  const id = await createOutside(page, 'A meeting');
  await visit(page, `/sessions/${id}`);
  const other = await context.newPage();
  await visit(other, `/sessions/${id}`);
  for (const tab of [page, other]) await expectLive(tab);
  await expectStreams(hark).toBe(2);
  const setVisibility = (visibility: string) =>
    page.evaluate(visibility => {
      Object.defineProperty(document, 'visibilityState', { value: visibility, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, visibility);
  await setVisibility('hidden');
  await expectStreams(hark).toBe(1);
  await report(other, id, { stage: 'transcribing', progress: 50 });
  await expect(other.getByTestId('percent')).toHaveText('50%');
  await setVisibility('visible');
  await expectStreams(hark).toBe(2);
  await expect(page.getByTestId('percent')).toHaveText('50%');
});
