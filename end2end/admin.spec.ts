// Administrators: signing in and out, refused strangers, and what they do to others' sessions; with and without scripts, and
// each page in light and dark, narrow and wide, checked for accessibility.
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import type { Page } from '@playwright/test';
import { expect, expectGoodLooks, test, type Hark } from './fixtures.ts';
import { create, waitForEnd } from './sessions.ts';
import { clip } from './speech.ts';
import { createTone, slowEngine } from './tones.ts';

const BIN = path.resolve(import.meta.dirname, process.env.HARK_BIN ?? '../target/released/hark');
const PASSWORD = 'correct horse battery';

function setPassword(hark: Hark, password = PASSWORD) {
  const env = { ...process.env, HARK_DATA_DIR: hark.data };
  execFileSync(BIN, ['admin', 'set-password', '--stdin'], { env, input: `${password}\n` });
}

async function signIn(page: Page, to = '/admin') {
  await page.goto(to);
  await page.getByTestId('password').fill(PASSWORD);
  await page.getByTestId('sign-in').click();
  await expect(page).toHaveURL(url => url.pathname + url.search === to);
}

for (const javaScriptEnabled of [true, false]) {
  test.describe(javaScriptEnabled ? 'with scripts' : 'without scripts', () => {
    // Slow, so that sessions still run when they are cancelled.
    test.use({ javaScriptEnabled, harkEnv: slowEngine(1) });

    test('an administrator signs in, and strangers are refused', async ({ page, hark, someone, allow }) => {
      allow(/status of 403/);
      await page.goto('/admin');
      await expect(page.getByTestId('admin-off')).toContainText('hark admin set-password');
      setPassword(hark);
      await page.goto('/admin/sessions?state=failed');
      await expect(page).toHaveURL(/\/admin\/sign-in\?to=/);
      await page.getByTestId('password').fill('a wrong password');
      await page.getByTestId('sign-in').click();
      await expect(page.getByTestId('error-message')).toContainText("isn't the administrators' password");
      await page.getByTestId('password').fill(PASSWORD);
      await page.getByTestId('sign-in').click();
      await expect(page).toHaveURL(/\/admin\/sessions\?state=failed$/);
      await expect(page.getByTestId('shown')).toHaveText('There is none.');

      const stranger = await someone({ javaScriptEnabled });
      await stranger.goto('/admin/sessions');
      await expect(stranger.getByTestId('password')).toBeVisible();
      expect(await stranger.request.get('/api/v1/admin/sessions').then(r => r.status())).toBe(401);

      await page.getByRole('button', { name: 'Sign out' }).click();
      await expect(page.getByTestId('password')).toBeVisible();
      await page.goto('/admin');
      await expect(page.getByTestId('password')).toBeVisible();

      // Another password ends sign-ins.
      await signIn(page);
      setPassword(hark, 'another long password');
      await page.goto('/admin');
      await expect(page.getByTestId('password')).toBeVisible();
    });

    test('an administrator cancels, retries and deletes the sessions of others', async ({ page, hark, someone }) => {
      setPassword(hark);
      const owner = await someone();
      const ids = [await createTone(owner, 120), await createTone(owner, 120)];
      await signIn(page, '/admin/sessions');
      const rows = page.getByTestId('admin-row');
      await expect(rows).toHaveCount(2);
      for (const id of ids) await page.locator(`[data-session="${id}"]`).getByTestId('pick').check();
      await page.getByTestId('cancel').click();
      await expect(page.getByTestId('outcome')).toHaveText('2 sessions were cancelled.');
      expect(await waitForEnd(owner, ids[0]!)).toBe('cancelled');

      // The filter shows them, and the next action keeps it.
      await expect(rows).toHaveCount(0);
      await page.getByLabel('State').selectOption({ label: 'Cancelled' });
      await page.getByTestId('filter').click();
      await expect(rows).toHaveCount(2);
      await rows.first().getByTestId('pick').check();
      await page.getByTestId('retry').click();
      await expect(page.getByTestId('outcome')).toHaveText('1 session was queued again.');
      await expect(page).toHaveURL(/state=cancelled/);
      await expect(rows).toHaveCount(1);

      await rows.first().getByTestId('pick').check();
      await page.getByTestId('delete').click();
      await page.getByTestId('confirm-delete').click();
      await expect(page.getByTestId('outcome')).toHaveText('1 session was deleted.');
      const left = await Promise.all(ids.map(id => owner.request.get(`/api/v1/sessions/${id}`).then(r => r.status())));
      expect(left.sort()).toEqual([200, 404]);
      expect(hark.log()).toMatch(/administrator sign-in [0-9a-f]{6}: session [0-9a-f-]{36} was deleted/);
    });
  });
}

test('the list of sessions changes by itself and keeps what is ticked', async ({ page, hark, someone }) => {
  setPassword(hark);
  const owner = await someone();
  const id = await create(owner, clip('wav'));
  await signIn(page, '/admin/sessions?state=queued,processing,completed');
  const row = page.locator(`[data-session="${id}"]`);
  await row.getByTestId('pick').check();
  expect(await waitForEnd(owner, id)).toBe('completed');
  await expect(row.getByTestId('state')).toHaveText('Done');
  await expect(row.getByTestId('pick')).toBeChecked();
});

for (const colorScheme of ['light', 'dark'] as const) {
  for (const width of [390, 1280]) {
    test.describe(`${colorScheme} ${width}`, () => {
      test.use({ colorScheme, viewport: { width, height: 800 }, harkEnv: slowEngine(1) });

      test(`the pages of administrators are accessible and fit the window, ${colorScheme}, ${width} wide`, async ({ page, hark, someone, allow }) => {
        allow(/status of 403/);
        const check = (name: string) => expectGoodLooks(page, `${name}-${colorScheme}-${width}`);
        await page.goto('/admin');
        await check('admin-off');
        setPassword(hark);
        await page.goto('/admin/sign-in');
        await page.getByTestId('password').fill('a wrong password');
        await page.getByTestId('sign-in').click();
        await expect(page.getByTestId('error-message')).toBeVisible();
        await check('admin-sign-in');
        const owner = await someone();
        const cancelled = await createTone(owner, 120);
        await owner.request.post(`/api/v1/sessions/${cancelled}/cancel`);
        await createTone(owner, 120);
        await signIn(page, '/admin/sessions?state=queued,processing,cancelled');
        await expect(page.getByTestId('admin-row')).toHaveCount(2);
        await page.getByTestId('delete').click();
        await check('admin-sessions');
      });
    });
  }
}
