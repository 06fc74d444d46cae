// Opening sessions on another device: a link that works once, a recovery key, leaving; and the message if cookies are
// blocked. All with and without scripts.
import { chromium, type Page } from '@playwright/test';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, expectGoodLooks, test, visit } from './fixtures.ts';
import { create } from './sessions.ts';
import { clip } from './speech.ts';


// No workers: the sessions stay queued.
test.use({ harkEnv: { HARK_WORKERS: '0' } });

async function rows(page: Page): Promise<number> {
  await visit(page, '/');
  return page.getByTestId('session-row').count();
}

for (const scripts of [true, false]) {
  const how = scripts ? 'with scripts' : 'without scripts';
  test.describe(how, () => {
    test.use({ javaScriptEnabled: scripts });

    test(`a link opens sessions on another device, once, ${how}`, async ({ page, someone }) => {
      await visit(page, '/');
      await create(page, clip('mp3'));
      await page.getByRole('contentinfo').getByRole('link', { name: 'Your sessions on another device' }).click();
      await page.getByTestId('make-link').click();
      const link = await page.getByTestId('link-url').inputValue();
      await expect(page.getByTestId('link-qr')).toBeVisible();

      const phone = await someone({ javaScriptEnabled: scripts });
      await visit(phone, '/');
      await create(phone, clip('mp3'));
      await create(phone, clip('mp3'));
      await visit(phone, link);
      await expect(phone.getByTestId('open-left')).toContainText('2 sessions of its own');
      // A recovery key can save the sessions of this browser first.
      await phone.getByRole('link', { name: 'make a recovery key' }).click();
      await phone.getByTestId('make-recovery').click();
      const recovery = await phone.getByTestId('recovery-url').inputValue();
      await visit(phone, link);
      await phone.getByTestId('open').click();
      await phone.waitForURL(url => url.pathname === '/');
      expect(await rows(phone)).toBe(1);
      expect(await rows(page)).toBe(1);

      const other = await someone({ javaScriptEnabled: scripts });
      await visit(other, link);
      await expect(other.getByTestId('error-message')).toContainText('opens nothing');

      // The typed recovery key brings the first sessions back.
      await visit(phone, '/identity/open');
      await phone.getByTestId('open-key').fill(recovery.replace(/^.*key=/, '').toUpperCase());
      await phone.getByTestId('open').click();
      await phone.waitForURL(url => url.pathname === '/');
      expect(await rows(phone)).toBe(2);
      await phone.goto('/identity/open');
      await phone.getByTestId('open-key').fill('nonsense');
      await phone.getByTestId('open').click();
      await expect(phone.getByTestId('error-message')).toContainText('opens nothing');
    });

    test(`leaving needs a ticked box, ${how}`, async ({ page }) => {
      await visit(page, '/');
      await create(page, clip('mp3'));
      await visit(page, '/identity');
      await page.getByTestId('leave').click();
      await page.getByTestId('leave-confirm').click();
      // The browser itself requires the tick.
      expect(new URL(page.url()).pathname).toBe('/identity');
      await page.getByTestId('leave-sure').check();
      await page.getByTestId('leave-confirm').click();
      await page.waitForURL(url => url.pathname === '/');
      await expect(page.getByTestId('empty')).toBeVisible();
    });

    test(`the upload page says that cookies are blocked, ${how}`, async ({ hark }, info) => {
      const profile = info.outputPath('profile');
      await mkdir(path.join(profile, 'Default'), { recursive: true });
      await writeFile(
        path.join(profile, 'Default/Preferences'),
        JSON.stringify({ profile: { default_content_setting_values: { cookies: 2 } } }),
      );
      const { executablePath, args } = info.project.use.launchOptions!;
      const context = await chromium.launchPersistentContext(profile, {
        executablePath,
        args,
        baseURL: hark.url,
        javaScriptEnabled: scripts,
      });
      try {
        const page = await context.newPage();
        await visit(page, '/upload');
        await expect(page.getByTestId('error-message')).toContainText("blocks Hark's cookie");
        await expect(page.getByTestId('upload-submit')).toBeDisabled();
        // Navigation within the app shows the message too.
        await visit(page, '/');
        await page.locator('.nav a[href="/upload"]').click();
        await expect(page.getByTestId('error-message')).toContainText("blocks Hark's cookie");
        expect(await context.cookies()).toEqual([]);
      } finally {
        await context.close();
      }
    });
  });
}

test('the error of a plain form is still shown after hydration', async ({ page }) => {
  await visit(page, '/');
  const id = await create(page, clip('mp3'));
  await visit(page, `/sessions/${id}`);
  // Sent as if the page weren't hydrated yet.
  await page.evaluate(() => {
    const form = document.querySelector<HTMLFormElement>('.rename form')!;
    form.querySelector<HTMLInputElement>('[name=title]')!.value = ' ';
    form.submit();
  });
  await expect(page.getByTestId('error-message')).toHaveText('the title is empty; give it at least one character');
  await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
  await expect(page.getByTestId('error-message')).toBeVisible();
  expect(new URL(page.url()).search).toBe('');
  await page.getByRole('link', { name: 'Sessions' }).first().click();
  await expect(page.getByTestId('session-row')).toHaveCount(1);
  await expect(page.getByTestId('error-message')).toHaveCount(0);
});

test('markup in a title is shown as text, before and after hydration', async ({ page }) => {
  const text = '</title><h1 id="x">a & b</h1>&lt;';
  await page.goto(`/?q=${encodeURIComponent(text)}`, { waitUntil: 'commit' });
  await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
  expect(await page.title()).toBe(`Search: ${text} · Hark`);
  await expect(page.locator('#x')).toHaveCount(0);
  const served = await page.request.get(`/?q=${encodeURIComponent(text)}`);
  expect(await served.text()).toContain('<title>Search: &lt;/title>&lt;h1 id="x">a &amp; b&lt;/h1>&amp;lt; · Hark</title>');
});

for (const colorScheme of ['light', 'dark'] as const) {
  for (const width of [390, 1280]) {
    test.describe(`${colorScheme} ${width}`, () => {
      test.use({ colorScheme, viewport: { width, height: 800 } });

      test(`the identity pages are accessible and fit the window, ${colorScheme}, ${width} wide`, async ({ page, someone }) => {
        const check = (page: Page, name: string) => expectGoodLooks(page, `${name}-${colorScheme}-${width}`);
        await visit(page, '/identity');
        await check(page, 'identity-empty');
        await create(page, clip('mp3'));
        await visit(page, '/identity');
        await page.getByTestId('make-link').click();
        await expect(page.getByTestId('link-qr')).toBeVisible();
        const link = await page.getByTestId('link-url').inputValue();
        await page.getByTestId('make-recovery').click();
        await expect(page.getByTestId('recovery-qr')).toBeVisible();
        await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
        await page.getByTestId('leave').click();
        await check(page, 'identity');
        const other = await someone({ colorScheme, viewport: { width, height: 800 } });
        await visit(other, '/');
        await create(other, clip('mp3'));
        await visit(other, link);
        await check(other, 'open');
        await visit(other, '/identity/open?key=nonsense');
        await check(other, 'open-invalid');
      });
    });
  }
}
