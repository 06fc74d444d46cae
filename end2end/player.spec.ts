// The player of a session's page: the waveform as a slider, buttons, keys, clicks on lines and words, the text that follows,
// pictures, and copies of recordings that the browser can't play.
import { AxeBuilder } from '@axe-core/playwright';
import { type Page } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test, visit } from './fixtures.ts';
import { create, upload, waitForEnd } from './sessions.ts';
import { WORDS, at, clickWave, currentLineIsVisible, media, open, paused, speed } from './player.ts';
import { clip } from './speech.ts';
import { slowEngine, tone } from './tones.ts';

const SCREENSHOTS = path.join(import.meta.dirname, 'artifacts/screenshots');
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

test.describe('with lines and words', () => {
  test.use({ harkEnv: WORDS });

  test('buttons play, skip, and set speed and volume', async ({ page }) => {
    await open(page, 60);
    // Hark's own controls take the place of the browser's.
    await expect(media(page)).toBeHidden();
    await expect(media(page)).not.toHaveAttribute('controls');
    const play = page.getByTestId('play');
    await expect(play).toHaveAccessibleName('Play');
    await play.click();
    await expect(play).toHaveAccessibleName('Pause');
    await expect.poll(() => at(page)).toBeGreaterThan(0.2);
    await play.click();
    expect(await paused(page)).toBe(true);
    const before = await at(page);
    await page.getByTestId('on').click();
    await page.getByTestId('on').click();
    expect(await at(page)).toBeCloseTo(before + 10, 1);
    await page.getByTestId('back').click();
    expect(await at(page)).toBeCloseTo(before + 5, 1);
    await expect(page.getByTestId('player-time')).toHaveText(/^0:0[56] \/ 1:00$/);

    await page.getByTestId('speed').selectOption('2.5');
    expect(await speed(page)).toBe(2.5);
    await page.getByTestId('volume').fill('0.5');
    expect(await media(page).evaluate((media: HTMLMediaElement) => media.volume)).toBe(0.5);
    await page.getByTestId('mute').click();
    await expect(page.getByTestId('mute')).toHaveAttribute('aria-pressed', 'true');
    expect(await media(page).evaluate((media: HTMLMediaElement) => media.muted)).toBe(true);
    // The speed stays for the next recording.
    await page.reload();
    await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
    await expect(page.getByTestId('speed')).toHaveValue('2.5');
    expect(await speed(page)).toBe(2.5);
  });

  /** Hark's player is there and works, as on a page that was loaded. */
  async function expectPlayer(page: Page) {
    await expect(page.getByTestId('play')).toBeVisible();
    await expect(media(page)).toBeHidden();
    await expect(media(page)).not.toHaveAttribute('controls');
    await expect(page.getByTestId('speed')).toHaveValue('1.5');
    expect(await speed(page)).toBe(1.5);
    await expect(page.getByTestId('use-keys')).toBeChecked();
    // Its lines are reached by Tab, and not their list.
    await expect(page.getByTestId('transcript')).toHaveAttribute('tabindex', '-1');
    await page.getByTestId('play').click();
    await expect(page.getByTestId('play')).toHaveAccessibleName('Pause');
    await expect.poll(() => at(page)).toBeGreaterThan(0.2);
  }

  test('the player is there on a page that was reached within the app', async ({ page }) => {
    await page.addInitScript(() => localStorage.setItem('hark-speed', '1.5'));
    await open(page, 60);
    await expectPlayer(page);
    await page.getByRole('link', { name: 'Sessions' }).first().click();
    await page.getByTestId('session-row').getByRole('link').first().click();
    await expect(page.getByTestId('segment').first()).toBeVisible();
    await expectPlayer(page);
    // After an upload.
    await upload(page, clip('wav'));
    await expect(page.getByTestId('segment').first()).toBeVisible();
    await expectPlayer(page);
  });

  test('the waveform shows the time under the pointer and is a slider', async ({ page }) => {
    await open(page, 60);
    const wave = page.getByTestId('waveform');
    await expect(wave.locator('svg')).toBeVisible();
    const box = (await wave.boundingBox())!;
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await expect(page.getByTestId('pointer-time')).toHaveText(/^0:(29|30)$/);
    await clickWave(page, 0.25);
    await expect.poll(() => at(page)).toBeGreaterThan(14.5);
    expect(await at(page)).toBeLessThan(20);
    await page.mouse.move(0, 0);
    await expect(page.getByTestId('pointer-time')).toBeHidden();

    const slider = page.getByRole('slider', { name: 'Position' });
    await page.getByTestId('play').click();
    await slider.focus();
    await page.keyboard.press('Home');
    await expect(slider).toHaveAttribute('aria-valuetext', '0 seconds of 1 minute');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowUp');
    await expect(slider).toHaveAttribute('aria-valuetext', '10 seconds of 1 minute');
    await page.keyboard.press('ArrowLeft');
    await expect(slider).toHaveAttribute('aria-valuetext', '5 seconds of 1 minute');
    expect(await at(page)).toBeCloseTo(5, 1);
    expect(await paused(page)).toBe(true);
    // The playhead is where the position is.
    const head = await wave.locator('.wave-head').evaluate((e: HTMLElement) => parseFloat(e.style.getPropertyValue('--at')));
    expect(head).toBeCloseTo(100 / 12, 0);
  });

  test('keys control the player, and leave inputs, buttons and links theirs', async ({ page }) => {
    await open(page, 60);
    await page.locator('main').focus();
    await page.keyboard.press('Space');
    await expect.poll(() => paused(page)).toBe(false);
    await page.keyboard.press('k');
    await expect.poll(() => paused(page)).toBe(true);
    const start = await at(page);
    await page.keyboard.press('l');
    await page.keyboard.press('ArrowRight');
    expect(await at(page)).toBeCloseTo(start + 15, 1);
    await page.keyboard.press('j');
    await page.keyboard.press('ArrowLeft');
    expect(await at(page)).toBeCloseTo(start, 1);
    await page.keyboard.press('>');
    expect(await speed(page)).toBe(1.25);
    await page.keyboard.press('<');
    expect(await speed(page)).toBe(1);
    await page.keyboard.press('m');
    expect(await media(page).evaluate((media: HTMLMediaElement) => media.muted)).toBe(true);
    await page.keyboard.press('m');
    await page.keyboard.press('k');
    await expect.poll(() => paused(page)).toBe(false);
    // Esc first closes what is open.
    await page.getByTestId('delete').focus();
    await page.keyboard.press('Enter');
    await expect(page.getByTestId('confirm-delete')).toBeVisible();
    await page.keyboard.press('Escape');
    await expect(page.getByTestId('confirm-delete')).toBeHidden();
    expect(await paused(page)).toBe(false);
    await page.keyboard.press('Escape');
    await expect.poll(() => paused(page)).toBe(true);

    // The title's field takes what is typed.
    const stopped = await at(page);
    await page.getByTestId('rename').click();
    await page.getByTestId('rename-input').fill('');
    await page.getByTestId('rename-input').pressSequentially('jkl m');
    await page.keyboard.press('ArrowLeft');
    await expect(page.getByTestId('rename-input')).toHaveValue('jkl m');
    expect(await at(page)).toBe(stopped);
    expect(await paused(page)).toBe(true);
    await page.getByTestId('rename').click();
    // Space presses the button that has the focus, and nothing else.
    await page.getByTestId('mute').focus();
    await page.keyboard.press('Space');
    expect(await media(page).evaluate((media: HTMLMediaElement) => media.muted)).toBe(true);
    expect(await paused(page)).toBe(true);

    // The list of keys, by keyboard alone.
    await page.getByTestId('keys').focus();
    await page.keyboard.press('Enter');
    await expect(page.getByTestId('keys-list')).toBeVisible();
    await expect(page.getByTestId('keys-list')).toContainText('5 seconds back or on');
    await page.keyboard.press('Tab');
    await expect(page.getByTestId('use-keys')).toBeFocused();
    await page.keyboard.press('Space');
    await page.keyboard.press('Escape');
    await expect(page.getByTestId('keys-list')).toBeHidden();
    await expect(page.getByTestId('keys')).toBeFocused();
    await page.keyboard.press('k');
    expect(await paused(page)).toBe(true);
    // Also after a reload they stay off, until they are switched on.
    await page.reload();
    await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
    await page.keyboard.press('k');
    expect(await paused(page)).toBe(true);
    await page.getByTestId('keys').click();
    await page.getByTestId('use-keys').check();
    await page.keyboard.press('Escape');
    await page.keyboard.press('k');
    await expect.poll(() => paused(page)).toBe(false);
  });

  test('a click on a line plays it, one on a word plays from the word, and text can be selected', async ({ page }) => {
    await open(page, 60);
    const line = page.getByTestId('segment').nth(5);
    // Beside the text.
    await line.click({ position: { x: 90, y: 2 } });
    await expect.poll(() => at(page)).toBeGreaterThan(19.9);
    expect(await at(page)).toBeLessThan(23);
    await expect(line).toHaveAttribute('aria-current', 'true');
    await page.keyboard.press('k');
    // On the third of its words.
    const word = await line.evaluate(line => {
      const text = [...line.querySelector('p')!.childNodes].find(node => node.textContent!.includes('third'))!;
      const range = document.createRange();
      const from = text.textContent!.indexOf('third');
      range.setStart(text, from);
      range.setEnd(text, from + 5);
      const { x, y, width, height } = range.getBoundingClientRect();
      return { x: x + width / 2, y: y + height / 2 };
    });
    await page.mouse.click(word.x, word.y);
    await expect.poll(() => at(page)).toBeGreaterThan(21.9);
    expect(await at(page)).toBeLessThan(25);
    await page.keyboard.press('k');
    const before = await at(page);

    // Who selects text isn't taken elsewhere.
    const other = (await page.getByTestId('segment').nth(1).locator('p').boundingBox())!;
    await page.mouse.move(other.x + 2, other.y + other.height / 2);
    await page.mouse.down();
    await page.mouse.move(other.x + 120, other.y + other.height / 2, { steps: 5 });
    await page.mouse.up();
    expect(await page.evaluate(() => String(getSelection()))).toContain('line1');
    expect(await at(page)).toBe(before);
    expect(await paused(page)).toBe(true);
  });

  for (const width of [390, 1280]) {
    test(`the text follows what is played until one scrolls, and the follow button brings it back, ${width} wide`, async ({ page }) => {
      await page.setViewportSize({ width, height: 800 });
      await open(page, 600);
      const list = page.getByTestId('transcript');
      await clickWave(page, 0.67);
      await expect.poll(() => at(page)).toBeGreaterThan(396);
      await expect.poll(() => currentLineIsVisible(page)).toBe(true);
      await page.getByTestId('speed').selectOption('3');
      // Some lines later it still is.
      await expect.poll(() => at(page), { timeout: 30_000 }).toBeGreaterThan(430);
      await expect.poll(() => currentLineIsVisible(page)).toBe(true);
      await expect(page.getByTestId('follow')).toHaveCount(0);

      await list.evaluate(e => e.scrollTo(0, 0));
      await expect(page.getByTestId('follow')).toHaveText('Follow the recording');
      const now = await at(page);
      await expect.poll(() => at(page)).toBeGreaterThan(now + 9);
      expect(await list.evaluate(e => e.scrollTop)).toBe(0);
      await page.getByTestId('follow').click();
      await expect(page.getByTestId('follow')).toHaveCount(0);
      await expect.poll(() => currentLineIsVisible(page)).toBe(true);
      const later = await at(page);
      await expect.poll(() => at(page)).toBeGreaterThan(later + 13);
      await expect.poll(() => currentLineIsVisible(page)).toBe(true);
    });

    test(`the player stays in view and covers neither the text nor what has the focus, ${width} wide`, async ({ page }) => {
      await page.setViewportSize({ width, height: 700 });
      await open(page, 600);
      await page.getByTestId('transcript').scrollIntoViewIfNeeded();
      await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
      const player = page.getByTestId('player');
      const covers = () =>
        page.evaluate(() => {
          const player = document.querySelector('[data-testid=player]')!.getBoundingClientRect();
          const focused = document.activeElement!.getBoundingClientRect();
          return focused.top < player.bottom && focused.bottom > player.top && !document.querySelector('[data-testid=player]')!.contains(document.activeElement);
        });
      // Everything that can have the focus, backwards, so that the page scrolls up.
      await page.getByTestId('download-json').focus();
      for (let n = 0; n < 12; n++) {
        await page.keyboard.press('Shift+Tab');
        expect(await covers(), await page.evaluate(() => document.activeElement!.outerHTML.slice(0, 200))).toBe(false);
      }
      await page.evaluate(() => scrollTo(0, document.querySelector('[data-testid=transcript]')!.getBoundingClientRect().top + scrollY - 300));
      await expect(player).toBeInViewport({ ratio: 1 });
      const overlap = await page.evaluate(() => {
        const player = document.querySelector('[data-testid=player]')!.getBoundingClientRect();
        return player.height / innerHeight;
      });
      expect(overlap).toBeLessThan(0.25);
    });

    for (const colorScheme of ['light', 'dark'] as const) {
      test(`the player is accessible, ${colorScheme}, ${width} wide`, async ({ page }) => {
        await page.setViewportSize({ width, height: 800 });
        await page.emulateMedia({ colorScheme });
        await open(page, 60);
        await page.getByTestId('segment').nth(3).click({ position: { x: 90, y: 2 } });
        await expect.poll(() => at(page)).toBeGreaterThan(12);
        await page.getByTestId('keys').click();
        await page.screenshot({ path: path.join(SCREENSHOTS, `player-${colorScheme}-${width}.png`), fullPage: true });
        const { violations } = await new AxeBuilder({ page }).withTags(TAGS).analyze();
        expect(violations.map(v => `${v.id}: ${v.help}: ${v.nodes.map(n => n.html).join(' | ')}`)).toEqual([]);
        expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
      });
    }
  }
});

test.describe('while lines come', () => {
  test.use({ harkEnv: slowEngine(0.5) });

  test('playing goes before new lines', async ({ page }) => {
    const name = test.info().outputPath('long.wav');
    writeFileSync(name, tone(120));
    await visit(page, '/');
    const id = await create(page, name);
    await visit(page, `/sessions/${id}`);
    const list = page.getByTestId('transcript');
    await expect.poll(() => list.evaluate(e => e.scrollTop), { timeout: 60_000 }).toBeGreaterThan(100);
    await clickWave(page, 0.01);
    await expect.poll(() => currentLineIsVisible(page)).toBe(true);
    const lines = await page.getByTestId('segment').count();
    await expect.poll(() => page.getByTestId('segment').count()).toBeGreaterThan(lines + 2);
    await expect.poll(() => currentLineIsVisible(page)).toBe(true);
    expect(await list.evaluate(e => e.scrollHeight - e.scrollTop - e.clientHeight)).toBeGreaterThan(40);
    await page.getByTestId('play').click();
    await expect(page.getByTestId('follow')).toHaveText(/Follow live/);
    await page.getByTestId('follow').click();
    await expect.poll(() => list.evaluate(e => e.scrollHeight - e.scrollTop - e.clientHeight)).toBeLessThan(40);
  });
});

test.describe('formats that browsers cannot play', () => {
  test.use({ harkEnv: WORDS });

  /** Encodes the clip with these options of ffmpeg. */
  function encoded(file: string, ...options: string[]): string {
    const name = test.info().outputPath(file);
    execFileSync('ffmpeg', ['-v', 'error', '-y', '-i', clip('wav'), ...options, name]);
    return name;
  }

  for (const [file, kind, ...options] of [
    ['a.m4a', 'ALAC', '-c:a', 'alac'],
    ['a.wma', 'WMA', '-c:a', 'wmav2'],
    ['a.ac3', 'AC-3', '-c:a', 'ac3'],
    ['a.caf', 'CAF', '-c:a', 'pcm_s16le'],
    ['b.caf', 'CAF', '-c:a', 'alac'],
  ] as const) {
    test(`a copy of ${file}, ${kind}, is made when somebody presses play, and plays`, async ({ page }) => {
      await visit(page, '/');
      const id = await create(page, encoded(file, ...options));
      await waitForEnd(page, id);
      await visit(page, `/sessions/${id}`);
      const note = page.getByTestId('player-note');
      await expect(note).toContainText(`Not every browser can play ${kind}. When you press play, Hark makes a copy`);
      await page.getByTestId('segment').nth(2).click({ position: { x: 90, y: 2 } });
      await expect(note).toContainText(`This is a copy, because this browser can't play ${kind}.`, { timeout: 60_000 });
      await expect.poll(() => at(page)).toBeGreaterThan(8);
      await expect(page.getByTestId('play')).toHaveAccessibleName('Pause');
      expect(await media(page).evaluate((media: HTMLMediaElement) => media.duration)).toBeGreaterThan(20);
    });
  }

  test('a recording that this browser turns out not to play gets a copy, and at last a WAV file', async ({ page, allow }) => {
    allow(/ERR_|status of/);
    await visit(page, '/');
    const id = await create(page, clip('mp3'));
    await waitForEnd(page, id);
    // A browser without the decoder, and with a broken one for Opus.
    await page.route(/\/(audio|playable)$/, route => route.fulfill({ body: 'nothing that can be played', contentType: 'audio/mpeg' }));
    await visit(page, `/sessions/${id}`);
    await expect(page.getByTestId('player-note')).toContainText('Not every browser can play MP3');
    await page.getByTestId('play').click();
    await expect(page.getByTestId('player-note')).toContainText('This is a copy');
    await expect.poll(() => at(page)).toBeGreaterThan(0.5);
    expect(await media(page).evaluate((media: HTMLMediaElement) => media.currentSrc)).toContain('?as=wav');
  });

  test('where no copy can be made, the page says why and offers the recording', async ({ page, allow }) => {
    allow(/status of 422/);
    await visit(page, '/');
    const id = await create(page, encoded('a.wma', '-c:a', 'wmav2'));
    await waitForEnd(page, id);
    await visit(page, `/sessions/${id}`);
    const failed = { code: 'no_copy', message: 'No copy that browsers can play could be made.' };
    await page.route('**/api/make_copy*', route => route.fulfill({ status: 422, json: failed }));
    await page.getByTestId('play').click();
    await expect(page.getByTestId('player-note')).toContainText("This browser can't play WMA.");
    await expect(page.getByTestId('player-note').getByRole('link')).toHaveAttribute('href', `/api/v1/sessions/${id}/audio`);
    // The next try may succeed.
    await page.unroute('**/api/make_copy*');
    await page.getByTestId('play').click();
    await expect.poll(() => at(page)).toBeGreaterThan(0.2);
  });

  test('the picture of a video is shown', async ({ page }) => {
    const film = test.info().outputPath('film.webm');
    const picture = ['-f', 'lavfi', '-i', 'testsrc=size=320x180:rate=5:duration=20'];
    execFileSync('ffmpeg', ['-v', 'error', '-y', ...picture, '-i', clip('wav'), '-shortest', '-c:v', 'libvpx', '-c:a', 'libopus', film]);
    await visit(page, '/');
    const id = await create(page, film);
    await waitForEnd(page, id);
    await visit(page, `/sessions/${id}`);
    await expect(media(page)).toBeVisible();
    await expect(page.getByTestId('full-screen')).toBeVisible();
    const box = (await media(page).boundingBox())!;
    expect(box.height).toBeGreaterThan(100);
    await media(page).click();
    await expect.poll(() => paused(page)).toBe(false);
    await page.screenshot({ path: path.join(SCREENSHOTS, 'player-video.png') });
  });
});

test.describe('without scripts', () => {
  test.use({ harkEnv: WORDS, javaScriptEnabled: false });

  test('the browser\'s own player is there, also for what takes a copy', async ({ page }) => {
    await page.goto('/');
    for (const [file, wait] of [[clip('wav'), 'audio'], [clip('wma'), 'playable']] as const) {
      const id = await create(page, file);
      await waitForEnd(page, id);
      await page.goto(`/sessions/${id}`);
      await expect(media(page)).toBeVisible();
      await expect(media(page)).toHaveAttribute('controls');
      await expect(page.getByTestId('play')).toBeHidden();
      await expect(page.getByTestId('position')).toBeHidden();
      // A browser plays nothing before somebody has clicked.
      await page.locator('h1').click();
      await media(page).evaluate((media: HTMLMediaElement) => media.play());
      await expect.poll(() => at(page), { timeout: 60_000 }).toBeGreaterThan(0.2);
      expect(await media(page).evaluate((media: HTMLMediaElement) => media.currentSrc)).toContain(wait);
    }
  });
});
