// Helpers for tests with sessions: upload, watch, download.
import { type Page, type Locator } from '@playwright/test';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, visit } from './fixtures.ts';
import { TEXT, wordErrorRate } from './speech.ts';

export const state = (page: Page): Locator => page.getByTestId('state').first();

/** Waits until the page shows a session in this state. */
export async function expectState(page: Page, name: string, timeout?: number) {
  await expect(state(page)).toHaveAttribute('data-state', name, { timeout });
}

/** Uploads a file through the page, with or without scripts, and waits for the session's page. */
export async function upload(page: Page, file: string) {
  await visit(page, '/upload');
  await page.getByTestId('file-input').setInputFiles(file);
  await page.getByTestId('upload-submit').click();
  await page.waitForURL(/\/sessions\/[0-9a-f-]{36}$/, { timeout: 20_000 });
  await expect(state(page)).toBeVisible();
}

/** Makes a session through the API, with the cookies of the page. Returns its id. */
export async function create(page: Page, file: string): Promise<string> {
  const buffer = await readFile(file);
  const response = await page.request.post('/api/v1/sessions', {
    multipart: { file: { name: path.basename(file), mimeType: 'application/octet-stream', buffer } },
  });
  expect(response.status()).toBe(201);
  return ((await response.json()) as { id: string }).id;
}

/** Waits through the API until a session has ended. Returns its state. */
export async function waitForEnd(page: Page, id: string): Promise<string> {
  let status = '';
  await expect
    .poll(async () => {
      status = ((await (await page.request.get(`/api/v1/sessions/${id}/status`)).json()) as { status: string }).status;
      return ['completed', 'failed', 'cancelled'].includes(status);
    }, { timeout: 90_000 })
    .toBe(true);
  return status;
}

export interface Sample {
  /** queued, processing, completed, failed, cancelled */
  state: string;
  /** off, connecting, live, polling, offline */
  badge: string;
  /** Percent; null while indeterminate. */
  progress: number | null;
  segments: number;
}

/** Records what the page shows after every change, until the session is completed. */
export async function record(page: Page): Promise<Sample[]> {
  await page.evaluate(() => {
    const data = (id: string, name: string) => document.querySelector<HTMLElement>(`[data-testid=${id}]`)?.dataset[name] ?? '';
    const samples: unknown[] = ((window as any).samples = []);
    const sample = () => {
      const now = document.querySelector('[data-testid=progress]')?.getAttribute('aria-valuenow');
      samples.push({
        state: data('state', 'state'),
        badge: data('badge', 'mode'),
        progress: now === null || now === undefined ? null : Number(now),
        segments: document.querySelectorAll('[data-testid=segment]').length,
      });
    };
    sample();
    // Recorded with the next frame, because nobody sees the states within one update.
    new MutationObserver(() => requestAnimationFrame(sample)).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
  });
  await expectState(page, 'completed', 90_000);
  return page.evaluate(() => (window as any).samples);
}

/**
 * Checks that the transcript has the text of the clip, on the page and in every download. At most a share of `errors` of its
 * words may be wrong.
 */
export async function expectTranscript(page: Page, errors = 0.15) {
  const shown = (await page.getByTestId('segment').allTextContents()).join(' ');
  expect(shown.trim()).not.toBe('');
  const get = async (format: string) => {
    const href = await page.getByTestId(`download-${format}`).getAttribute('href');
    // Without the page's settings: then a cue of subtitles is a line.
    const response = await page.request.get(href!.split('?')[0]);
    expect(response.status(), format).toBe(200);
    return response.text();
  };

  const txt = await get('txt');
  expect(wordErrorRate(TEXT, txt), txt).toBeLessThanOrEqual(errors);
  const lines = txt.trim().split('\n');

  const srt = (await get('srt')).trim().split('\n\n');
  expect(srt).toHaveLength(lines.length);
  for (const [i, cue] of srt.entries()) {
    expect(cue).toMatch(new RegExp(`^${i + 1}\\n\\d\\d:\\d\\d:\\d\\d,\\d{3} --> \\d\\d:\\d\\d:\\d\\d,\\d{3}\\n.+$`));
  }

  const [head, ...cues] = (await get('vtt')).trim().split('\n\n');
  expect(head).toBe('WEBVTT');
  expect(cues).toHaveLength(lines.length);
  for (const cue of cues) expect(cue).toMatch(/^\d\d:\d\d:\d\d\.\d{3} --> \d\d:\d\d:\d\d\.\d{3}\n.+$/);

  const json = JSON.parse(await get('json')) as { session: unknown; segments: { index: number; start: number; end: number; text: string }[] };
  expect(json.segments.map(s => s.index)).toEqual(json.segments.map((_, i) => i));
  for (const segment of json.segments) expect(segment.end).toBeGreaterThanOrEqual(segment.start);
  expect(wordErrorRate(TEXT, json.segments.map(s => s.text).join(' '))).toBeLessThanOrEqual(errors);
}
