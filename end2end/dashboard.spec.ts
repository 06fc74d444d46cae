// The administrators' dashboard: it changes by itself while somebody reads it, has ranges, works without JavaScript, is refused
// to strangers, and loads nothing of the app.
import { expect, expectGoodLooks, test, type Hark } from './fixtures.ts';
import { type Page } from '@playwright/test';
import { create } from './sessions.ts';
import { clip } from './speech.ts';

const TOKEN = 'a'.repeat(40);
const administrator = { extraHTTPHeaders: { authorization: `Bearer ${TOKEN}` } };
const tile = (page: Page, name: string) => page.locator(`#live-${name} dd`);

// Without workers, what is sent stays in the queue.
test.use({ harkEnv: { HARK_ADMIN_TOKEN: TOKEN, HARK_WORKERS: '0' } });

test('the overview changes by itself, and leaves alone what somebody reads', async ({ page, someone }) => {
  const admin = await someone(administrator);
  await admin.goto('/admin');
  await expect(admin.getByRole('heading', { level: 1, name: 'Overview' })).toBeVisible();
  await expect(admin.locator('#live-badge')).toHaveAttribute('data-mode', 'live');
  await expect(tile(admin, 'queued')).toHaveText('0');
  await admin.evaluate(() => ((window as any).same = true));
  const delays = admin.locator('#delays');
  await delays.getByText('The numbers').click();
  await expect(delays.getByRole('table')).toBeVisible();
  await delays.locator('svg.plot').focus();
  await admin.keyboard.press('ArrowRight');
  await expect(delays.locator('.tip')).not.toBeEmpty();
  const tip = await delays.locator('.tip').textContent();
  await admin.keyboard.press('ArrowRight');
  await expect(delays.locator('.tip')).not.toHaveText(tip!);

  await create(page, clip('wav'));
  await expect(tile(admin, 'queued')).toHaveText('1');
  expect(await admin.evaluate(() => (window as any).same), 'the page was loaded again').toBe(true);
  await expect(delays.getByRole('table')).toBeVisible();
  await expect(delays.locator('svg.plot')).toBeFocused();
});

test('the ranges are links, and pages work without JavaScript', async ({ page, someone }) => {
  const admin = await someone({ ...administrator, javaScriptEnabled: false });
  await create(page, clip('wav'));
  await admin.goto('/admin');
  await expect(tile(admin, 'queued')).toHaveText('1');
  const ranges = admin.getByRole('navigation', { name: 'Range' });
  await expect(ranges.locator('[aria-current]')).toHaveText('Last 24 hours');
  await expect(admin.locator('#health rect.cell')).toHaveCount(24);
  await ranges.getByText('Last 7 days').click();
  await expect(admin).toHaveURL(/range=week/);
  await expect(ranges.locator('[aria-current]')).toHaveText('Last 7 days');
  await expect(admin.locator('#health rect.cell')).toHaveCount(168);
  await admin.getByRole('navigation', { name: 'Dashboard' }).getByText('Savings').click();
  await expect(admin.locator('#savings-formula')).toContainText('requests = visits');
  await admin.getByRole('navigation', { name: 'Dashboard' }).getByText('Nodes').click();
  await expect(admin.getByTestId('node')).toHaveCount(1);
});

test('strangers see nothing of it', async ({ page, allow }) => {
  allow(/status of (401|403)/);
  for (const address of ['/admin', '/admin/nodes', '/admin/savings?range=week']) {
    await page.goto(address);
    await expect(page).toHaveURL(/\/admin\/sign-in/);
    await expect(page.locator('.tiles')).toHaveCount(0);
  }
  const stream = await page.request.get('/api/v1/admin/stream');
  expect(stream.status()).toBe(401);
  expect(await stream.text()).not.toContain('promises');
});

test('the stream says what the page shows', async ({ hark, page }) => {
  await create(page, clip('wav'));
  const event = await firstEvent(hark, '/api/v1/admin/stream?range=hour');
  expect(event.range).toBe('hour');
  expect(event.now.queued).toBe(1);
  expect(event.promises.map(promise => promise.kind)).toEqual(['delay', 'requests', 'bytes', 'uptime', 'stuck']);
});

test('nobody loads the app for it', async ({ someone }) => {
  const admin = await someone(administrator);
  const loaded: string[] = [];
  admin.on('request', request => loaded.push(new URL(request.url()).pathname));
  await admin.goto('/admin');
  await expect(admin.locator('#live-badge')).toHaveAttribute('data-mode', 'live');
  expect(loaded.filter(name => /\.(wasm|js)$/.test(name))).toEqual([]);
});

for (const colorScheme of ['light', 'dark'] as const) {
  for (const width of [390, 1280]) {
    test(`the dashboard is accessible and fits the window, ${colorScheme}, ${width} wide`, async ({ someone }) => {
      const admin = await someone({ ...administrator, colorScheme, viewport: { width, height: 800 }, reducedMotion: 'reduce' });
      for (const [name, address] of [['overview', '/admin?range=hour'], ['nodes', '/admin/nodes'], ['savings', '/admin/savings']]) {
        await admin.goto(address);
        await expect(admin.locator('#live-badge')).toHaveAttribute('data-mode', 'live');
        await expectGoodLooks(admin, `admin-${name}-${colorScheme}-${width}`);
      }
    });
  }
}

/** What the first event of the dashboard's stream says. */
async function firstEvent(hark: Hark, address: string) {
  const answer = await fetch(hark.url + address, { headers: administrator.extraHTTPHeaders });
  expect(answer.status).toBe(200);
  let text = '';
  for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    const data = /^event: overview\ndata: (.*)\n\n/m.exec(text);
    if (data) return JSON.parse(data[1]) as { range: string; now: { queued: number }; promises: { kind: string }[] };
  }
  throw new Error(`the stream ended without an event: ${text}`);
}
