// The main path: a recording is uploaded, watched and transcribed by Whisper. With scripts, without scripts, and without
// EventSource.
import { expect, test, visit } from './fixtures.ts';
import { WHISPER, WHISPER_ERRORS, clip } from './speech.ts';
import { type Sample, expectState, expectTranscript, record, state, upload } from './sessions.ts';
import { createTone, slowEngine } from './tones.ts';

test.use({ harkEnv: WHISPER });

function expectMonotonicProgress(samples: Sample[]) {
  const values = samples.map(s => s.progress).filter(p => p !== null);
  expect(values.length).toBeGreaterThan(0);
  expect(values, 'progress never falls').toEqual([...values].sort((a, b) => a - b));
  for (const sample of samples) {
    if (sample.progress === 100) expect(sample.state).toBe('completed');
  }
  const before = samples.filter(s => s.state !== 'completed');
  expect(before.some(s => s.segments > 0), 'segments arrive while it is processed').toBe(true);
}

for (const format of ['wav', 'mp3'] as const) {
  test(`a ${format} file is transcribed with scripts`, async ({ page }) => {
    await upload(page, clip(format));
    const samples = await record(page);
    expectMonotonicProgress(samples);
    expect(samples.some(s => s.badge === 'live'), 'the badge says Live').toBe(true);
    await expectTranscript(page, WHISPER_ERRORS);

    // A page loaded afterwards shows the same lines.
    const watched = await page.getByTestId('segment').allTextContents();
    await visit(page, page.url());
    expect(await page.getByTestId('segment').allTextContents()).toEqual(watched);
  });
}

test.describe('with a slow engine', () => {
  test.use({ harkEnv: slowEngine(1) });

  test('a page is hydrated without errors whenever it is loaded', async ({ page }) => {
    // The fixture checks the console, where Leptos reports a page that hydrates differently from what the server rendered.
    await visit(page, '/');
    const id = await createTone(page, 12);
    const seen = new Set<string>();
    for (let loads = 0; !seen.has('completed') || loads % 10 !== 0; loads++) {
      await visit(page, loads % 4 === 3 ? '/' : `/sessions/${id}`);
      seen.add((await state(page).getAttribute('data-state'))!);
      await page.waitForTimeout((loads % 10) * 20);
    }
    expect([...seen]).toContain('processing');
  });
});

test.describe('without scripts', () => {
  test.use({ javaScriptEnabled: false });
  for (const format of ['wav', 'mp3'] as const) {
    test(`a ${format} file is transcribed without scripts`, async ({ page }) => {
      await upload(page, clip(format));
      await expect(async () => {
        await page.reload();
        await expectState(page, 'completed', 100);
      }).toPass({ timeout: 180_000, intervals: [1_000] });
      await expectTranscript(page, WHISPER_ERRORS);
    });
  }
});

test.describe('without EventSource', () => {
  // A fast machine transcribes the clip in less than the usual poll interval of 3 seconds.
  test.use({ harkEnv: { ...WHISPER, HARK_LINK_TIMING: 'poll=300' } });

  test('the page polls', async ({ page }) => {
    await page.addInitScript(() => delete (window as any).EventSource);
    const streams: string[] = [];
    page.on('request', request => {
      if (request.url().includes('/stream')) streams.push(request.url());
    });
    await upload(page, clip('wav'));
    const samples = await record(page);
    expectMonotonicProgress(samples);
    expect(samples.some(s => s.badge === 'polling'), 'the badge says Polling').toBe(true);
    expect(samples.some(s => s.badge === 'live'), 'the badge never says Live').toBe(false);
    expect(streams).toEqual([]);
    await expect(page.getByTestId('segment').first()).toBeVisible();
    await expectTranscript(page, WHISPER_ERRORS);
  });
});
