// The theme: the system's unless another was chosen, from the first frame on, in every tab and on the pages of administrators.
import { type Page } from '@playwright/test';
import { expect, expectGoodLooks, test, visit } from './fixtures.ts';
import { slowEngine } from './tones.ts';

const LIGHT = 'rgb(247, 246, 243)';
const DARK = 'rgb(22, 24, 27)';
const TOKEN = 'a'.repeat(40);

test.use({ harkEnv: { ...slowEngine(0), HARK_ADMIN_TOKEN: TOKEN } });

const expectGround = (page: Page, color: string) => expect(page.locator('body')).toHaveCSS('background-color', color);
const control = (page: Page) => page.getByRole('combobox', { name: 'Theme' });
/** The colour that a phone gives the frame of its browser. */
const frame = (page: Page) =>
  page.evaluate(() => {
    const all = [...document.querySelectorAll('meta[name=theme-color]')];
    return all.filter(meta => matchMedia(meta.getAttribute('media')!).matches).map(meta => meta.getAttribute('content'));
  });

/** Notes the page's colour in each frame from the first on. */
async function noteColors(page: Page) {
  await page.addInitScript(() => {
    const seen = ((window as any).seen = new Set<string>());
    const look = () => {
      if (document.body) seen.add(getComputedStyle(document.body).backgroundColor);
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
  return () => page.evaluate(() => [...(window as any).seen] as string[]);
}

for (const [system, ground, chosen, other] of [['dark', DARK, 'light', LIGHT], ['light', LIGHT, 'dark', DARK]] as const) {
  test.describe(`where the system is ${system}`, () => {
    test.use({ colorScheme: system });

    test(`the ${chosen} theme can be chosen instead of the ${system} one`, async ({ page }) => {
      const colors = await noteColors(page);
      await visit(page, '/');
      await expectGround(page, ground);
      await expect(control(page)).toHaveValue('system');
      await control(page).selectOption(chosen);
      await expectGround(page, other);
      expect(await frame(page)).toEqual([{ light: '#f7f6f3', dark: '#16181b' }[chosen]]);
      await expect(page.locator('html')).toHaveCSS('color-scheme', chosen);
      // It stays within the app and over a new load, and no frame of that has the other colour.
      await page.locator('.nav a[href="/upload"]').click();
      await expect(page.getByTestId('upload-form')).toBeVisible();
      await expectGround(page, other);
      await visit(page, '/upload');
      await expect(control(page)).toHaveValue(chosen);
      expect(await colors()).toEqual([other]);
      await expectGoodLooks(page, `theme-${chosen}-in-${system}`);

      await control(page).selectOption('system');
      await expectGround(page, ground);
      await expect(page.locator('html')).toHaveCSS('color-scheme', system);
      await page.emulateMedia({ colorScheme: chosen });
      await expectGround(page, other);
      expect(await page.evaluate(() => localStorage.getItem('hark-theme'))).toBeNull();
    });
  });
}

test('other tabs follow, and so do the pages of administrators', async ({ context, page, hark }) => {
  await visit(page, '/');
  const admin = await context.newPage();
  await admin.setExtraHTTPHeaders({ authorization: `Bearer ${TOKEN}` });
  await admin.goto(`${hark.url}/admin`);
  await expectGround(admin, LIGHT);
  await control(page).selectOption('dark');
  await expectGround(admin, DARK);
  await expect(control(admin)).toHaveValue('dark');
  await admin.reload();
  await expectGround(admin, DARK);
  await expect(control(admin)).toHaveValue('dark');
  await control(admin).selectOption('light');
  await expectGround(page, LIGHT);
  await expect(control(page)).toHaveValue('light');
});

test('where storage is blocked, the choice holds for the page', async ({ page }) => {
  await page.addInitScript(() =>
    Object.defineProperty(window, 'localStorage', {
      get() {
        throw new DOMException('blocked', 'SecurityError');
      },
    }),
  );
  await visit(page, '/');
  await control(page).selectOption('dark');
  await expectGround(page, DARK);
});

test.describe('without JavaScript', () => {
  test.use({ javaScriptEnabled: false, colorScheme: 'dark' });

  test('the theme is the system\'s, and no control is shown', async ({ page }) => {
    await page.goto('/');
    await expect(page.locator('.footer')).toBeVisible();
    await expect(page.getByTestId('theme')).toBeHidden();
    await expectGround(page, DARK);
  });
});
