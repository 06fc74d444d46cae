// A transcript of hours: one tab stop, and only what is near the screen is laid out, while the browser finds and prints all.
import { type Page } from '@playwright/test';
import { expect, test } from './fixtures.ts';
import { WORDS, clickWave, currentLineIsVisible, open, paused } from './player.ts';

// A trace takes all of the page at every step, which takes longer than the test.
test.use({ harkEnv: { ...WORDS, HARK_ENGINE_COMMAND: `${WORDS.HARK_ENGINE_COMMAND} 0.005` }, trace: 'off' });

/** As many as were heard in 3 h 43. */
const LINES = 3400;
const laidOut = (page: Page) =>
  page.evaluate(
    () => [...document.querySelectorAll('.line')].filter(e => e.firstElementChild!.checkVisibility({ contentVisibilityAuto: true })).length,
  );
const stops = (page: Page) =>
  page.evaluate(() => [...document.querySelectorAll<HTMLElement>('.transcript, .transcript *')].filter(e => e.tabIndex >= 0).length);

for (const width of [390, 1280]) {
  test(`has one tab stop, and only what is near the screen is laid out, ${width} wide`, async ({ page }) => {
    await page.setViewportSize({ width, height: 800 });
    await open(page, 68);
    const line = page.getByTestId('segment');
    const time = page.getByTestId('segment-time');
    await expect(line).toHaveCount(LINES);
    expect(await laidOut(page)).toBeLessThan(150);
    expect(await stops(page)).toBe(1);

    // By keys alone: into the lines, through them, and out.
    await page.getByTestId('find').focus();
    await page.keyboard.press('Tab');
    await expect(time.first()).toBeFocused();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('PageDown');
    await expect(time.nth(11)).toBeFocused();
    await page.keyboard.press('ArrowUp');
    await expect(time.nth(10)).toBeFocused();
    await expect(time.nth(10)).toBeInViewport();
    await page.keyboard.press('Shift+Tab');
    await page.keyboard.press('Tab');
    await expect(time.nth(10)).toBeFocused();
    await page.keyboard.press('End');
    await expect(time.last()).toBeFocused();
    await expect(time.last()).toBeInViewport();
    expect(await stops(page)).toBe(1);
    await page.keyboard.press('Tab');
    expect(await page.evaluate(() => document.activeElement!.closest('.transcript'))).toBeNull();

    // The line that is played is the stop.
    await page.getByTestId('play').click();
    await page.getByTestId('play').click();
    await clickWave(page, 0.67);
    await expect.poll(() => currentLineIsVisible(page)).toBe(true);
    await page.keyboard.press('k');
    await expect.poll(() => paused(page)).toBe(true);
    const current = page.locator('.line[aria-current]');
    expect(await current.evaluate(e => [...e.parentElement!.children].indexOf(e))).toBeGreaterThan(2200);
    await expect(current.getByTestId('segment-time')).toHaveAttribute('tabindex', '0');
    expect(await stops(page)).toBe(1);
    expect(await laidOut(page)).toBeLessThan(300);

    // The browser finds and prints what it hasn't laid out.
    expect(await page.evaluate(() => (window as any).find('line1500', true) && String(getSelection()))).toBe('line1500');
    await page.emulateMedia({ media: 'print' });
    expect(await laidOut(page)).toBe(LINES);
  });
}
