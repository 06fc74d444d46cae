// The page of a session as people use it: notices, times, the stall warning, notifications, and use by keyboard alone.
import { type Page } from '@playwright/test';
import { randomUUID } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test, visit } from './fixtures.ts';
import { create, expectState, expectTranscript, waitForEnd } from './sessions.ts';
import { clip } from './speech.ts';

const ENGINE = path.join(import.meta.dirname, 'counting_engine.py');
const HUNG = path.join(tmpdir(), `hark-hung-${randomUUID()}`);
const SHORT_TIMEOUTS = 'first=800,silence=4000,poll=300,retry=1500,base=100,cap=400,healthy=2000,spacing=100';
const counting = (pause: number) => ({
  HARK_ENGINE: 'command',
  HARK_ENGINE_COMMAND: `python3 ${ENGINE} ${pause}`,
  HARK_LINK_TIMING: SHORT_TIMEOUTS,
});

const focused = (page: Page) => page.locator(':focus');

/** Presses Tab until the focused element matches. */
async function tabTo(page: Page, selector: string) {
  for (let presses = 0; presses < 60; presses++) {
    await page.keyboard.press('Tab');
    if (await page.evaluate(selector => document.activeElement?.matches(selector), selector)) return;
  }
  throw new Error(`Tab never came to ${selector}`);
}

test('upload, watch, download and delete work by keyboard alone', async ({ page }) => {
  await visit(page, '/');
  // The first stop is the skip link.
  await page.keyboard.press('Tab');
  await expect(focused(page)).toHaveText('Skip to the content');
  await tabTo(page, '.nav a[href="/upload"]');
  await page.keyboard.press('Enter');
  await page.waitForURL('/upload');
  await expect(page.locator('main')).toBeFocused();

  // Enter must open the browser's own file chooser.
  await tabTo(page, '[data-testid=file-input]');
  const chooser = page.waitForEvent('filechooser');
  await page.keyboard.press('Enter');
  await (await chooser).setFiles(clip('wav'));
  await tabTo(page, '[data-testid=upload-submit]');
  await page.keyboard.press('Enter');
  await page.waitForURL(/\/sessions\/[0-9a-f-]{36}$/);
  await expect(page.getByTestId('segment').first()).toBeVisible({ timeout: 60_000 });

  // A line plays the recording from there.
  await tabTo(page, '[data-testid=segment-time]');
  await page.keyboard.press('Enter');
  await expectState(page, 'completed', 90_000);
  await expect.poll(() => page.locator('audio').evaluate((audio: HTMLAudioElement) => audio.played.length)).toBeGreaterThan(0);

  // Download, then delete with its confirmation.
  await tabTo(page, '[data-testid=download-txt]');
  const download = page.waitForEvent('download');
  await page.keyboard.press('Enter');
  expect((await download).suggestedFilename()).toMatch(/\.txt$/);
  await expectTranscript(page);
  await page.locator('main').focus();
  await tabTo(page, '[data-testid=delete]');
  await page.keyboard.press('Enter');
  await tabTo(page, '[data-testid=confirm-delete]');
  await page.keyboard.press('Enter');
  await page.waitForURL(url => url.pathname === '/');
  await expect(page.getByTestId('session-row')).toHaveCount(0);
});

test.describe('with a slow engine', () => {
  test.use({ harkEnv: counting(0.6) });

  test('a page says that polling takes over, and that updates are live again', async ({ page, allow }) => {
    allow(/Failed to load resource|EventSource's response|ERR_|net::/);
    await page.route('**/api/v1/status/stream*', route => route.fulfill({ status: 503, body: 'no' }));
    await visit(page, '/');
    await create(page, clip('wav'));
    await visit(page, '/');
    await expect(page.getByTestId('connection')).toContainText("Live updates don't get through here");
    await expect(page.getByTestId('badge')).toHaveAttribute('data-mode', 'polling');
    await page.unroute('**/api/v1/status/stream*');
    await expect(page.getByTestId('connection')).toHaveText(/^Live/);
    await expect(page.getByTestId('badge')).toHaveAttribute('data-mode', 'live');
  });

  test('in a browser without EventSource the page does not mention streams', async ({ page }) => {
    await page.addInitScript(() => delete (window as any).EventSource);
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    await expect(page.getByTestId('badge')).toHaveAttribute('data-mode', 'polling');
    await expect(page.getByTestId('connection')).toContainText('Updates come every 3 s');
    await expect(page.getByTestId('connection')).not.toContainText('ive');
  });

  test('each stage shows how long it took, the same live as after a reload', async ({ page }) => {
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    await expectState(page, 'completed', 60_000);
    const times = () => page.getByTestId('stage-time').allTextContents();
    const live = await times();
    expect(live.length).toBeGreaterThanOrEqual(2);
    await visit(page, page.url());
    const loaded = await times();
    expect(loaded).toHaveLength(4);
    // The page's own log must agree with the store's; it may lack a stage that was too short to be seen.
    expect(loaded).toEqual(expect.arrayContaining([live.at(-1)!]));
  });

  test('the focus stays where one is after cancel, retry and rename, and Esc closes what was opened', async ({ page }) => {
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    await expect(page.getByTestId('segment').first()).toBeVisible();
    await page.getByTestId('cancel').focus();
    await page.keyboard.press('Enter');
    await expectState(page, 'cancelled', 20_000);
    await expect(page.getByRole('group', { name: 'Actions' })).toBeFocused();
    // The next stop is the button that came in its place.
    await page.keyboard.press('Tab');
    await expect(page.getByTestId('retry')).toBeFocused();
    await page.keyboard.press('Enter');
    await expect(page.getByTestId('retry')).toHaveCount(0);
    await expect(page.getByRole('group', { name: 'Actions' })).toBeFocused();

    for (const [opener, inside] of [['rename', 'rename-input'], ['delete', 'confirm-delete']]) {
      await page.getByTestId(opener).focus();
      await page.keyboard.press('Enter');
      // The field of the title has it at once.
      if (opener !== 'rename') await page.keyboard.press('Tab');
      await expect(page.getByTestId(inside)).toBeFocused();
      await page.keyboard.press('Escape');
      await expect(page.getByTestId(inside)).toBeHidden();
      await expect(page.getByTestId(opener)).toBeFocused();
    }
    await page.getByTestId('rename').press('Enter');
    await page.getByTestId('rename-input').fill('Another name');
    await page.keyboard.press('Enter');
    await expect(page.getByTestId('session-title')).toHaveText('Another name');
    await expect(page.getByTestId('rename')).toBeFocused();
  });

  for (const width of [390, 1280]) {
    test(`a title is changed where it stands, and nothing moves, ${width} wide`, async ({ page }) => {
      await page.setViewportSize({ width, height: 800 });
      await visit(page, '/');
      const id = await create(page, clip('wav'));
      await waitForEnd(page, id);
      const title = 'A long title of a meeting about roads, houses and mornings, which takes several lines on a phone';
      expect((await page.request.patch(`/api/v1/sessions/${id}`, { data: { title } })).ok()).toBe(true);
      await visit(page, `/sessions/${id}`);
      const [button, field, heading] = [page.getByTestId('rename'), page.getByTestId('rename-input'), page.getByTestId('session-title')];
      const places = async () => [await button.boundingBox(), await page.getByTestId('status-card').boundingBox(), await page.getByTestId('transcript').boundingBox()];
      const before = await places();
      await expect(button).toHaveAccessibleName('Rename');
      await button.click();
      await expect(button).toHaveAccessibleName('Close');
      expect(await places()).toEqual(before);
      // The form takes the place of the heading.
      const [form, under] = [(await page.locator('.rename form').boundingBox())!, (await heading.boundingBox())!];
      expect(form.y).toBeLessThanOrEqual(under.y);
      expect(form.y + form.height).toBeGreaterThanOrEqual(under.y + under.height);
      // What is typed takes the place of the title.
      await expect(field).toBeFocused();
      await expect(field).toHaveValue(title);
      await page.keyboard.type('Given up');
      await expect(field).toHaveValue('Given up');
      await page.keyboard.press('Escape');
      await expect(field).toBeHidden();
      await expect(button).toBeFocused();
      await page.keyboard.press('Enter');
      await expect(field).toHaveValue(title);
      await page.keyboard.type('Roads');
      await page.getByTestId('rename-save').click();
      await expect(heading).toHaveText('Roads');
      await expect(button).toBeFocused();
      await button.click();
      await expect(field).toHaveValue('Roads');
      await button.click();
      await expect(field).toBeHidden();
    });
  }

  test('the title and the icon show the progress', async ({ page }) => {
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    await expect(page).toHaveTitle(/^[1-9]\d?% · road\.wav · Hark$/);
    const icon = page.locator('link[rel=icon]');
    await expect(icon).toHaveAttribute('href', /^data:image\/svg\+xml,.*stroke-dasharray='[1-9]\d? 100'/);
    await expectState(page, 'completed', 60_000);
    await expect(page).toHaveTitle('road.wav · Hark');
    await expect(icon).toHaveAttribute('href', '/favicon.svg');
  });

  test('lines can be downloaded from the first frame that shows them', async ({ page }) => {
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    await page.evaluate(() => {
      const seen = ((window as any).seen = { frames: 0, without: 0 });
      const sample = () => {
        if (document.querySelector('[data-testid=segment]')) {
          seen.frames += 1;
          if (!document.querySelector('[data-testid=download-txt]')?.checkVisibility()) seen.without += 1;
        }
        requestAnimationFrame(sample);
      };
      sample();
    });
    await expectState(page, 'completed', 60_000);
    const seen = await page.evaluate(() => (window as any).seen);
    expect(seen.frames).toBeGreaterThan(10);
    expect(seen.without).toBe(0);
  });

  test('after scrolling up the list stays, and a button shows how many lines are new', async ({ page }) => {
    await page.setViewportSize({ width: 1280, height: 500 });
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    const list = page.getByTestId('transcript');
    const distanceToEnd = () => list.evaluate(e => e.scrollHeight - e.scrollTop - e.clientHeight);
    await expect.poll(() => list.evaluate(e => e.scrollTop)).toBeGreaterThan(100);
    await expect.poll(distanceToEnd).toBeLessThan(40);
    await list.evaluate(e => e.scrollTo(0, 0));
    await expect(page.getByTestId('follow')).toHaveText(/Follow live · [2-9] new lines/);
    expect(await list.evaluate(e => e.scrollTop)).toBe(0);
    await page.getByTestId('follow').click();
    await expect(page.getByTestId('follow')).toHaveCount(0);
    await expect(page.getByTestId('transcript'), 'the focus is not lost with the button').toBeFocused();
    await expect.poll(distanceToEnd).toBeLessThan(40);
  });

  test('a click on the waveform or on the time of a line plays from there', async ({ page }) => {
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    // The waveform fills as audio is transcribed.
    const wave = page.getByTestId('waveform');
    const filled = () => wave.evaluate(e => parseFloat(e.style.getPropertyValue('--filled')));
    await expect(wave.locator('svg')).toBeVisible();
    await expect.poll(filled).toBeGreaterThan(10);
    const before = await filled();
    await expect.poll(filled).toBeGreaterThan(before);

    const audio = page.locator('audio');
    const at = () => audio.evaluate((audio: HTMLAudioElement) => audio.currentTime);
    const { width, height } = (await wave.boundingBox())!;
    await wave.click({ position: { x: width / 2, y: height / 2 } });
    const length = await audio.evaluate((audio: HTMLAudioElement) => audio.duration);
    await expect.poll(at).toBeGreaterThan(length / 2 - 0.5);
    await page.getByTestId('segment-time').nth(2).click();
    await expect.poll(at).toBeLessThan(length / 2);
    await expect.poll(at).toBeGreaterThan(2);
    await expect(page.locator('[data-testid=segment][aria-current=true]')).toHaveCount(1);
  });

  test('a queued session shows its position, and the list searches while one types', async ({ page }) => {
    await visit(page, '/');
    for (const title of ['First', 'Second', 'Third']) {
      const buffer = await readFile(clip('wav'));
      const file = { name: `${title}.wav`, mimeType: 'audio/wav', buffer };
      expect((await page.request.post('/api/v1/sessions', { multipart: { title, file } })).status()).toBe(201);
    }
    await visit(page, '/');
    const row = (title: string) => page.getByTestId('session-row').filter({ hasText: title });
    await expect(row('Second').getByTestId('queue-position')).toHaveText('next in line');
    await expect(row('Third').getByTestId('queue-position')).toHaveText('1 ahead');
    await expect(page.getByTestId('badge')).toHaveAttribute('data-mode', 'live');
    await expect(page.getByTestId('connection')).toHaveText(/^Live · updated/);
    await page.getByTestId('search').pressSequentially('thi');
    await expect(page.getByTestId('session-row')).toHaveCount(1);
    await expect(page).toHaveURL('/?q=thi');
    await page.getByTestId('search').fill('');
    await expect(page.getByTestId('session-row')).toHaveCount(3);
    await row('Second').getByTestId('cancel').click();
    await expect(row('Second').getByTestId('state')).toHaveAttribute('data-state', 'cancelled');
    await expect(row('Third').getByTestId('queue-position')).toHaveText('next in line');
  });

  test('a notification is shown at the end if the person has asked for it', async ({ page, context, hark }) => {
    await context.grantPermissions(['notifications'], { origin: hark.url });
    await page.addInitScript(() => {
      const shown: string[] = ((window as any).notified = []);
      const RealNotification = Notification;
      // A test window has no notification area, so the notifications are only recorded.
      (window as any).Notification = class {
        static permission = 'granted';
        static requestPermission = () => RealNotification.requestPermission();
        constructor(text: string) {
          shown.push(text);
        }
      };
      document.hasFocus = () => false;
    });
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    await page.getByTestId('notify').click();
    await expect(page.getByTestId('notify')).toHaveAttribute('aria-pressed', 'true');
    await expectState(page, 'completed', 60_000);
    await expect.poll(() => page.evaluate(() => (window as any).notified)).toEqual([expect.stringContaining('done')]);
  });

  test('the page reports on its connection', async ({ page, hark, allow }) => {
    test.setTimeout(180_000);
    allow(/favicon.ico/);
    const value = async (name: string) => {
      const text = await (await fetch(`${hark.url}/metrics`)).text();
      return Number(text.split('\n').find(line => line.startsWith(`${name} `))?.split(' ')[1] ?? 0);
    };
    let visits = 0;
    // A page that loaded slowly can't estimate the server's clock well enough, and correctly reports no delays.
    await expect(async () => {
      visits += 1;
      await visit(page, '/');
      const id = await create(page, clip('wav'));
      await visit(page, `/sessions/${id}`);
      await expectState(page, 'completed', 60_000);
      await page.goto('/healthz');
      await expect.poll(() => value('hark_client_mode_milliseconds_total{arm="stream",mode="live"}')).toBeGreaterThan(0);
      expect(await value('hark_client_delivery_seconds_count{arm="stream",mode="live"}')).toBeGreaterThan(0);
    }).toPass({ timeout: 150_000 });
    expect(await value('hark_client_visits_total{arm="stream"}')).toBeGreaterThan(0);
    expect(await value('hark_client_connects_total{arm="stream"}')).toBeGreaterThan(0);
    expect(await value('hark_client_first_event_seconds_count{arm="stream"}')).toBeGreaterThan(0);
    expect(await value('hark_client_received_bytes_total{arm="stream"}')).toBeGreaterThan(500);
    expect(await value('hark_client_requests_total{arm="stream",kind="stream"}')).toBeGreaterThan(0);
    expect(await value('hark_client_requests_total{arm="stream",kind="poll"}'), 'a live page doesn\'t poll').toBeLessThan(3 * visits);
    const failures = (await (await fetch(`${hark.url}/metrics`)).text()).match(/^hark_client_failures_total.* [1-9]/m);
    expect(failures, 'leaving a page is no failure').toBeNull();
  });
});

test.describe('with an engine that hangs', () => {
  // The test moves the browser's clock by a minute without a change. A page gives a stream up as late as usual meanwhile.
  test.use({ harkEnv: { HARK_ENGINE: 'command', HARK_ENGINE_COMMAND: `python3 ${ENGINE} 0 ${HUNG}` } });

  test('the stall warning shows the last message, and Retry continues after the last line', async ({ page, hark, allow }) => {
    // More time passes for the page than for the server, which doesn't count such reports.
    allow(/status of (422|429) .*\/api\/v1\/reports/);
    await page.clock.install();
    await visit(page, '/');
    const id = await create(page, clip('wav'));
    await visit(page, `/sessions/${id}`);
    await expect(page.getByTestId('segment').first()).toBeVisible();
    await expect(page.getByTestId('stalled')).toHaveCount(0);
    // The engine's last progress may still come, and the minute counts from then on. In small steps, because a page that hears
    // nothing from the server for 8 s doesn't blame the engine.
    await expect(async () => {
      await page.clock.fastForward(3_000);
      await expect(page.getByTestId('stalled')).toContainText('Transcribing', { timeout: 3_000 });
    }).toPass({ timeout: 150_000, intervals: [0] });
    await page.getByTestId('restart').click();
    await expectState(page, 'completed', 60_000);
    expect(await (await page.request.get(`/api/v1/sessions/${id}/status`)).json()).toMatchObject({ attempt: 2 });
    expect(hark.log()).not.toContain('ERROR');
    await rm(HUNG);
  });
});
