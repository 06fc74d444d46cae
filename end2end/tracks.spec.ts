// Recordings with several audio tracks, and with a speaker on each of two channels: what a page offers for them, with and
// without scripts.
import { expect, test, visit } from './fixtures.ts';
import { expectState, upload } from './sessions.ts';
import { slowEngine } from './tones.ts';
import { type Page, type TestInfo } from '@playwright/test';
import { execFileSync } from 'node:child_process';

// The counting engine has a line for each second, so the tracks are told apart by their length.
test.use({ harkEnv: slowEngine(0.05) });

function ffmpeg(file: string, ...args: string[]): string {
  execFileSync('ffmpeg', ['-loglevel', 'error', '-y', ...args, file]);
  return file;
}

const tone = (seconds: number) => ['-f', 'lavfi', '-i', `sine=frequency=440:duration=${seconds}:sample_rate=16000`];

/** A film of which the first audio track has three seconds, and the second five. */
const film = (info: TestInfo) =>
  ffmpeg(info.outputPath('film.mka'), ...tone(3), ...tone(5), '-map', '0', '-map', '1', '-c:a', 'flac');

/** Two people who talk in turns, on a channel each. */
const call = (info: TestInfo) => {
  const side = (speaks: string) => `0.3*sin(880*PI*t)*${speaks}`;
  const source = `aevalsrc=exprs='${side('lt(mod(t,2),1)')}|${side('gte(mod(t,2),1)')}':s=16000:d=4:c=stereo`;
  return ffmpeg(info.outputPath('call.wav'), '-f', 'lavfi', '-i', source);
};

const expectLines = (page: Page, count: number) => expect(page.getByTestId('segment')).toHaveCount(count);

/** Waits for the end on a page without scripts, which has to be loaded again for it. */
async function reloadUntilCompleted(page: Page) {
  await expect(async () => {
    await page.goto(page.url());
    await expectState(page, 'completed', 100);
  }).toPass({ timeout: 60_000, intervals: [500] });
}

for (const javaScriptEnabled of [true, false]) {
  test.describe(javaScriptEnabled ? 'with scripts' : 'without scripts', () => {
    test.use({ javaScriptEnabled });

    test('another track is chosen afterwards', async ({ page }, info) => {
      await upload(page, film(info));
      const completed = () => (javaScriptEnabled ? expectState(page, 'completed', 60_000) : reloadUntilCompleted(page));
      await completed();
      await expectLines(page, 3);
      await expect(page.getByTestId('remarks')).toContainText('2 audio tracks. Track 1 was heard');
      if (javaScriptEnabled) await page.evaluate(() => ((window as any).marked = true));

      await page.getByTestId('again').click();
      await page.getByTestId('again-track').selectOption('2');
      await expect(page.getByTestId('another-choice')).toContainText('gone for good');
      await expect(page.getByTestId('confirm-again')).toHaveText('Replace the transcript');
      await page.getByTestId('confirm-again').click();
      await expect(page.getByTestId('facts')).toContainText('Track 2');
      if (javaScriptEnabled) {
        // The old lines go at once, and the new ones come live.
        await expectLines(page, 5);
        await expectState(page, 'completed', 60_000);
        expect(await page.evaluate(() => (window as any).marked), 'the page was not reloaded').toBe(true);
      } else {
        await reloadUntilCompleted(page);
      }
      await expectLines(page, 5);
      await expect(page.getByTestId('remarks')).toContainText('Track 2 was heard, as chosen');
      await expect(page.getByTestId('segment-time').first()).toHaveText('0:00');
    });
  });
}

test('another choice is shown in other tabs, and the focus is kept', async ({ page, context }, info) => {
  await upload(page, film(info));
  await expectState(page, 'completed', 60_000);
  const other = await context.newPage();
  await visit(other, page.url());
  await expect(other.getByTestId('again-track')).toHaveValue('');
  await other.getByTestId('again').focus();
  await page.getByTestId('again').click();
  await page.getByTestId('again-track').selectOption('2');
  await page.getByTestId('confirm-again').focus();
  await page.keyboard.press('Enter');
  for (const tab of [page, other]) {
    await expect(tab.getByTestId('facts')).toContainText('Track 2');
    await expect(tab.getByTestId('again-track')).toHaveValue('2');
    await expectState(tab, 'completed', 60_000);
    await expectLines(tab, 5);
  }
  await expect(page.getByRole('group', { name: 'Actions' })).toBeFocused();
  await expect(other.getByTestId('again')).toBeFocused();
});

test('two speakers are labelled', async ({ page }, info) => {
  await visit(page, '/upload');
  await page.getByTestId('channels-select').selectOption('split');
  await page.getByTestId('file-input').setInputFiles(call(info));
  await page.getByTestId('upload-submit').click();
  await page.waitForURL(/\/sessions\/[0-9a-f-]{36}$/);
  await expectState(page, 'completed', 60_000);
  // The counting engine has a line for each second of each channel.
  await expectLines(page, 8);
  await expect(page.getByTestId('speaker').first()).toHaveText('Speaker 1:');
  await expect(page.getByTestId('speaker').nth(1)).toHaveText('Speaker 2:');
  await expect(page.getByTestId('facts')).toContainText('Two speakers, one on each channel');
});
