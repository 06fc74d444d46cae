// What tests of the player share: an engine that says where words begin, and what the player does.
import { type Page } from '@playwright/test';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test, visit } from './fixtures.ts';
import { create, waitForEnd } from './sessions.ts';
import { tone } from './tones.ts';

export const WORDS = { HARK_ENGINE: 'command', HARK_ENGINE_COMMAND: `python3 ${path.join(import.meta.dirname, 'word_engine.py')}` };

export const media = (page: Page) => page.locator('#recording');
export const at = (page: Page) => media(page).evaluate((media: HTMLMediaElement) => media.currentTime);
export const paused = (page: Page) => media(page).evaluate((media: HTMLMediaElement) => media.paused);
export const speed = (page: Page) => media(page).evaluate((media: HTMLMediaElement) => media.playbackRate);

/** Makes a session with a tone of this length, waits until it has its lines, and opens its page. */
export async function open(page: Page, seconds: number, file = `${seconds}.wav`): Promise<string> {
  const name = test.info().outputPath(file);
  writeFileSync(name, tone(seconds));
  await visit(page, '/');
  const id = await create(page, name);
  expect(await waitForEnd(page, id)).toBe('completed');
  await visit(page, `/sessions/${id}`);
  return id;
}

/** Clicks the waveform at a part of its width. */
export async function clickWave(page: Page, share: number) {
  const { width, height } = (await page.getByTestId('waveform').boundingBox())!;
  await page.getByTestId('waveform').click({ position: { x: width * share, y: height / 2 } });
}

/** Whether the current line is within the list and the window. */
export function currentLineIsVisible(page: Page) {
  return page.evaluate(() => {
    const line = document.querySelector('.line[aria-current]');
    const list = document.querySelector('[data-testid=transcript]')!.getBoundingClientRect();
    const player = document.querySelector('[data-testid=player]')!.getBoundingClientRect();
    if (!line) return false;
    const bounds = line.getBoundingClientRect();
    const scrolls = document.querySelector('[data-testid=transcript]')!;
    const [top, bottom] = scrolls.scrollHeight > scrolls.clientHeight + 1 ? [list.top, list.bottom] : [player.bottom, innerHeight];
    return bounds.top >= top - 1 && bounds.bottom <= bottom + 1;
  });
}
