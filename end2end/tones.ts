// Sessions with a recording of any length: a tone, which the counting engine transcribes as one line for each second.
import { type Page } from '@playwright/test';
import path from 'node:path';
import { expect, visit } from './fixtures.ts';
import { expectState } from './sessions.ts';

const ENGINE = path.join(import.meta.dirname, 'counting_engine.py');

/** Settings of a server whose engine takes `pause` seconds for each second of audio, and of pages with short timeouts. */
export const slowEngine = (pause: number, timing = '') => ({
  HARK_ENGINE: 'command',
  HARK_ENGINE_COMMAND: `python3 ${ENGINE} ${pause}`,
  HARK_LINK_TIMING: `first=800,silence=4000,poll=300,retry=1000,base=100,cap=400,healthy=2000,spacing=100${timing}`,
});

/** A recording of a tone: 16 kHz, mono, 16 bit. */
export function tone(seconds: number): Buffer {
  const samples = Buffer.alloc(seconds * 32_000);
  for (let i = 0; i < samples.length / 2; i++) samples.writeInt16LE(Math.round(Math.sin(i / 10) * 1000), i * 2);
  const head = Buffer.alloc(44);
  head.write('RIFF', 0);
  head.writeUInt32LE(36 + samples.length, 4);
  head.write('WAVEfmt ', 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(16_000, 24);
  head.writeUInt32LE(32_000, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write('data', 36);
  head.writeUInt32LE(samples.length, 40);
  return Buffer.concat([head, samples]);
}

/** Makes a session with a recording of this length. Returns its id. */
export async function createTone(page: Page, seconds: number, origin = '') {
  const response = await page.request.post(`${origin}/api/v1/sessions`, {
    multipart: { file: { name: 'tone.wav', mimeType: 'audio/wav', buffer: tone(seconds) } },
  });
  expect(response.status()).toBe(201);
  return ((await response.json()) as { id: string }).id;
}

/** Makes a session with a recording of this length, opens its page, and marks the page, so that a reload is noticed. */
export async function startSession(page: Page, seconds: number, origin = '') {
  const id = await createTone(page, seconds, origin);
  await visit(page, `${origin}/sessions/${id}`);
  await page.evaluate(() => ((window as any).marked = true));
  return id;
}

/** The same on a page that can't be hydrated, and without the mark. */
export async function startWithoutHydration(page: Page, seconds: number) {
  await page.goto(`/sessions/${await createTone(page, seconds)}`);
}

export const expectBadge = (page: Page, mode: string, timeout?: number) =>
  expect(page.getByTestId('badge')).toHaveAttribute('data-mode', mode, { timeout });

export const expectLines = (page: Page, count: number) =>
  expect.poll(() => page.getByTestId('segment').count(), { timeout: 60_000 }).toBeGreaterThanOrEqual(count);

/** Checks that the page shows the whole transcript, each line once and in order, and was never reloaded. */
export async function expectWholeTranscript(page: Page, seconds: number) {
  await expectState(page, 'completed', 120_000);
  // Compared by time, because the text of the engine's lines counts from 0 again in each attempt.
  const wanted = Array.from({ length: seconds }, (_, n) => `0:${String(n).padStart(2, '0')}`);
  await expect.poll(() => page.getByTestId('segment-time').allTextContents()).toEqual(wanted);
  expect(await page.evaluate(() => (window as any).marked), 'the page was not reloaded').toBe(true);
}

/** The messages that a browser itself writes to the console when requests fail. */
export const NETWORK_ERRORS = /Failed to load resource|EventSource's response|ERR_|net::/;
