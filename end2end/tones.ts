// Recordings that only need a length: a tone, and sessions made of it.
import { type Page } from '@playwright/test';
import path from 'node:path';
import { expect, visit } from './fixtures.ts';
import { expectState } from './sessions.ts';

const ENGINE = path.join(import.meta.dirname, 'counting_engine.py');

/** A server whose sessions take `pause` seconds for each second of audio, and pages that time out sooner. */
export const slow = (pause: number, timing = '') => ({
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

/** Makes a session of so many seconds; returns its id. */
async function create(page: Page, seconds: number, origin: string) {
  const response = await page.request.post(`${origin}/api/v1/sessions`, {
    multipart: { file: { name: 'tone.wav', mimeType: 'audio/wav', buffer: tone(seconds) } },
  });
  expect(response.status()).toBe(201);
  return ((await response.json()) as { id: string }).id;
}

/** Makes a session of so many seconds, goes to its page, and marks the page, so that a reload would be noticed. */
export async function start(page: Page, seconds: number, origin = '') {
  const id = await create(page, seconds, origin);
  await visit(page, `${origin}/sessions/${id}`);
  await page.evaluate(() => ((window as any).marked = true));
  return id;
}

/** The same on a page that can't be hydrated. */
export async function startAsleep(page: Page, seconds: number) {
  await page.goto(`/sessions/${await create(page, seconds, '')}`);
}

export const badge = (page: Page, mode: string, timeout?: number) =>
  expect(page.getByTestId('badge')).toHaveAttribute('data-mode', mode, { timeout });

export const lines = (page: Page, count: number) =>
  expect.poll(() => page.getByTestId('segment').count(), { timeout: 60_000 }).toBeGreaterThanOrEqual(count);

/** The whole of it, each line once and in order, on the page that was opened first. */
export async function expectWhole(page: Page, seconds: number) {
  await expectState(page, 'completed', 120_000);
  // By their times: an engine that goes on after a crash counts its own lines from 0 again.
  const wanted = Array.from({ length: seconds }, (_, n) => `0:${String(n).padStart(2, '0')}`);
  await expect.poll(() => page.getByTestId('segment-time').allTextContents()).toEqual(wanted);
  expect(await page.evaluate(() => (window as any).marked), 'the page was never loaded again').toBe(true);
}

/** What a browser writes into its console of its own when requests fail. */
export const NOISE = /Failed to load resource|EventSource's response|ERR_|net::/;
