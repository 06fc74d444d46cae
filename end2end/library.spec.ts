// The list of sessions as a library: filters and orders, what runs on top, first words, dates, the way back to the same place,
// several sessions at once, and deletions that can be undone.
import { type Page } from '@playwright/test';
import { expect, expectGoodLooks, test, visit } from './fixtures.ts';
import { waitForEnd } from './sessions.ts';
import { slowEngine, tone } from './tones.ts';

test.use({ harkEnv: slowEngine(0) });

const rows = (page: Page) => page.getByTestId('session-row');
const titles = (page: Page) => page.getByTestId('session-title').allTextContents();

/** Makes a session of so many seconds, with the cookies of the page. Returns its id. */
async function add(page: Page, title: string, seconds = 1, language = 'en'): Promise<string> {
  const multipart = { title, language, file: { name: 'tone.wav', mimeType: 'audio/wav', buffer: tone(seconds) } };
  let response = await page.request.post('/api/v1/sessions', { multipart });
  // Too many wait.
  for (let tries = 0; response.status() === 429 && tries < 100; tries++) {
    await page.waitForTimeout(200);
    response = await page.request.post('/api/v1/sessions', { multipart });
  }
  expect(response.status()).toBe(201);
  return ((await response.json()) as { id: string }).id;
}

/** Makes completed sessions. */
async function addAll(page: Page, all: [title: string, seconds: number, language: string][]): Promise<string[]> {
  const ids: string[] = [];
  for (const [title, seconds, language] of all) ids.push(await add(page, title, seconds, language));
  for (const id of ids) expect(await waitForEnd(page, id)).toBe('completed');
  return ids;
}

/** Opens the filters where they are folded. */
async function unfold(page: Page) {
  if (!(await page.getByTestId('filter-state').isVisible())) await page.getByTestId('filters').click();
}

for (const width of [390, 1280]) {
  for (const javaScriptEnabled of [true, false]) {
    test.describe(`${width} wide, ${javaScriptEnabled ? 'with' : 'without'} scripts`, () => {
      test.use({ viewport: { width, height: 800 }, javaScriptEnabled });

      test('the list is filtered and ordered', async ({ page }) => {
        await visit(page, '/');
        await addAll(page, [['beta', 2, 'de'], ['Alpha', 1, 'en'], ['gamma', 3, 'de']]);
        await visit(page, '/');
        await expect(rows(page)).toHaveCount(3);
        const choose = async (name: string, value: string) => {
          await unfold(page);
          await page.getByTestId(`filter-${name}`).selectOption(value);
          if (!javaScriptEnabled) await page.getByTestId('apply').click();
        };
        await expect(page.getByTestId('filter-order')).toBeVisible({ visible: width > 1000 });
        await choose('order', 'title');
        await expect.poll(() => titles(page)).toEqual(['Alpha', 'beta', 'gamma']);
        // A phone keeps the fields open only without a reload.
        await choose('order', 'longest');
        await expect.poll(() => titles(page)).toEqual(['gamma', 'beta', 'Alpha']);
        await choose('language', 'de');
        await expect.poll(() => titles(page)).toEqual(['gamma', 'beta']);
        await expect(page).toHaveURL(/language=de.*order=longest/);
        await page.getByTestId('search').fill('bet');
        await page.getByTestId('search').press('Enter');
        await expect.poll(() => titles(page)).toEqual(['beta']);
        await expect(page).toHaveURL(/q=bet.*language=de.*order=longest/);
        await choose('state', 'failed');
        await expect(page.getByTestId('empty')).toContainText('Nothing fits');
        // The checker of accessibility needs scripts.
        if (javaScriptEnabled) await expectGoodLooks(page, `library-empty-${width}`);
        await unfold(page);
        await page.getByTestId('clear-filters').click();
        await expect.poll(() => titles(page)).toEqual(['beta']);
        await visit(page, '/?state=nothing&order=worst&since=monday');
        await expect(rows(page)).toHaveCount(3);
      });

      test('a row says how its text begins and when it was made', async ({ page }) => {
        await visit(page, '/');
        await addAll(page, [['talk', 3, 'en']]);
        await visit(page, '/');
        await expect(page.getByTestId('beginning')).toHaveText('line 0 line 1 line 2');
        await expect(page.getByTestId('beginning')).toHaveAttribute('dir', 'auto');
        const time = rows(page).locator('time');
        await expect(time).toHaveText(/^(just now|1 minute ago)$/);
        expect(Date.now() - Date.parse((await time.getAttribute('datetime'))!)).toBeLessThan(120_000);
        await expect(time).toHaveAttribute('title', javaScriptEnabled ? /^\d+ \w+ \d{4}, \d\d:\d\d$/ : /UTC$/);
        if (javaScriptEnabled) await expectGoodLooks(page, `library-${width}`);
      });
    });
  }
}

test.describe('in another time zone', () => {
  test.use({ timezoneId: 'Pacific/Auckland' });

  test('days are those of the person', async ({ page, context }) => {
    await visit(page, '/');
    await addAll(page, [['talk', 1, 'en']]);
    const answer = await context.request.get('/api/v1/sessions');
    const made = new Date(((await answer.json()) as { sessions: { created_at: string }[] }).sessions[0].created_at);
    const local = new Intl.DateTimeFormat('en-CA', { timeZone: 'Pacific/Auckland' });
    const day = (days: number) => local.format(new Date(made.getTime() + days * 86_400_000));
    await visit(page, '/');
    await page.getByTestId('filter-since').fill(day(0));
    await expect(page).toHaveURL(/since=\d{4}-\d\d-\d\dT00%3A00%3A00%2B1[23]%3A00/);
    await expect(rows(page)).toHaveCount(1);
    await expect(page.getByTestId('filter-since')).toHaveValue(day(0));
    await page.getByTestId('filter-until').fill(day(-1));
    await expect(rows(page)).toHaveCount(0);
    await page.getByTestId('filter-until').fill(day(0));
    await expect(rows(page)).toHaveCount(1);
    await visit(page, page.url());
    await expect(page.getByTestId('filter-until')).toHaveValue(day(0));

    // As if it had been made some time ago, by the clocks of the browser and the server.
    let hours = 0;
    await page.route(url => url.pathname === '/', async route => {
      const response = await route.fetch();
      const later = (_: string, before: string, ms: string) => before + (Number(ms) + hours * 3_600_000);
      await route.fulfill({ response, body: (await response.text()).replace(/(name="hark-time" content=")(\d+)/, later) });
    });
    for (const [ago, expected] of [[2.1, /^2 hours ago$/], [30, /^(yesterday|2 days ago)$/], [24 * 3, /^(3|4) days ago$/], [24 * 60, /^\d+ \w+ \d{4}$/]] as const) {
      hours = ago;
      await page.clock.setFixedTime(Date.now() + hours * 3_600_000);
      await visit(page, '/');
      await expect(rows(page).locator('time')).toHaveText(expected);
    }
  });
});

test('hits in texts have their dates, and no picture above them', async ({ page }) => {
  await visit(page, '/');
  await addAll(page, [['talk', 2, 'de'], ['other', 2, 'en']]);
  await visit(page, '/?q=%22line%201%22');
  await expect(page.getByTestId('found-session')).toHaveCount(2);
  await expect(page.getByTestId('no-title')).toHaveText('No title has “"line 1"”.');
  await expect(page.getByTestId('empty')).toBeHidden();
  await expect(page.locator('.found time').first()).toHaveText(/^(just now|1 minute ago)$/);
  await expect(page.locator('.found time').first()).toHaveAttribute('title', /^\d+ \w+ \d{4}, \d\d:\d\d$/);
  await expectGoodLooks(page, 'library-found');
  await page.getByTestId('filter-language').selectOption('de');
  await expect(page.getByTestId('found-session')).toHaveCount(1);
  await expect(page.getByTestId('found-session')).toContainText('talk');
});

test('rows, filters and the place are there again', async ({ page }) => {
  await visit(page, '/');
  for (let n = 0; n < 60; n++) await add(page, `talk ${n}`);
  const active = async () => ((await (await page.request.get('/api/v1/sessions?state=active')).json()) as { sessions: unknown[] }).sessions.length;
  await expect.poll(active, { timeout: 60_000 }).toBe(0);
  await visit(page, '/?q=talk&order=oldest');
  await expect(rows(page)).toHaveCount(50);
  await page.getByTestId('load-more').click();
  await expect(rows(page)).toHaveCount(60);
  const last = page.getByRole('link', { name: 'talk 55', exact: true });
  await last.scrollIntoViewIfNeeded();
  const place = await page.evaluate(() => scrollY);
  expect(place).toBeGreaterThan(1000);
  await last.click();
  await page.waitForURL(/\/sessions\//);
  await expect(page.getByRole('link', { name: 'Sessions' }).last()).toBeVisible();
  await page.goBack();
  await expect(rows(page)).toHaveCount(60);
  await expect(last).toBeInViewport();
  await expect.poll(() => page.evaluate(() => scrollY)).toBe(place);

  await last.click();
  await page.locator('.crumb a').click();
  await expect(page).toHaveURL('/?q=talk&order=oldest');
  await expect(rows(page)).toHaveCount(60);
  await expect(page.getByTestId('filter-order')).toHaveValue('oldest');
  // The page of all sessions is another list.
  await page.locator('.nav a[href="/"]').click();
  await expect(rows(page)).toHaveCount(50);
});

test('who deletes all that is shown gets what comes next', async ({ page }) => {
  await visit(page, '/');
  for (let n = 0; n < 60; n++) await add(page, `talk ${n}`);
  const active = async () => ((await (await page.request.get('/api/v1/sessions?state=active')).json()) as { sessions: unknown[] }).sessions.length;
  await expect.poll(active, { timeout: 60_000 }).toBe(0);
  await visit(page, '/');
  await expect(rows(page)).toHaveCount(50);
  const removeAll = async () => {
    await page.getByTestId('pick-all').check();
    await page.getByTestId('selected-delete').click();
  };
  await removeAll();
  await expect(rows(page)).toHaveCount(10);
  await expect(rows(page).first()).toContainText('talk 9');
  await expect(page.getByTestId('empty')).toHaveCount(0);
  await expect(page.getByTestId('load-more')).toHaveCount(0);
  await page.getByTestId('undo').click();
  await expect(rows(page)).toHaveCount(60);
  await removeAll();
  await expect(rows(page)).toHaveCount(0);
  await expect(page.getByTestId('empty')).toContainText('Nothing transcribed yet');
});

test.describe('what another device does while nothing runs', () => {
  /** A page counts as visible in tests, so that it is seen again is faked. */
  const seeAgain = (page: Page) =>
    page.evaluate(() => {
      for (const visibility of ['hidden', 'visible']) {
        Object.defineProperty(document, 'visibilityState', { value: visibility, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
      }
    });
  const rename = (page: Page, id: string, title: string) => page.request.patch(`/api/v1/sessions/${id}`, { data: { title } });
  const remove = (page: Page, id: string) => page.request.delete(`/api/v1/sessions/${id}`);

  test('is in a list that is seen again', async ({ page }) => {
    await visit(page, '/');
    const ids = await addAll(page, [['one', 1, 'en'], ['two', 1, 'en'], ['three', 1, 'en']]);
    await visit(page, '/');
    await expect.poll(() => titles(page)).toEqual(['three', 'two', 'one']);
    await rename(page, ids[0], 'another one');
    await remove(page, ids[1]);
    await addAll(page, [['four', 1, 'en']]);
    await seeAgain(page);
    await expect.poll(() => titles(page)).toEqual(['four', 'three', 'another one']);
  });

  test('is on the page of a session that is seen again', async ({ page, allow }) => {
    allow(/status of 404/);
    await visit(page, '/');
    const [id] = await addAll(page, [['one', 2, 'en']]);
    await visit(page, `/sessions/${id}`);
    await rename(page, id, 'another one');
    await seeAgain(page);
    await expect(page.getByTestId('session-title')).toHaveText('another one');
    await remove(page, id);
    await seeAgain(page);
    await expect(page.getByRole('heading', { name: "This session isn't here" })).toBeVisible();
  });

  test('a 404 of a proxy without Hark behind it deletes nothing', async ({ page, allow }) => {
    allow(/status of 404/);
    await visit(page, '/');
    const [id] = await addAll(page, [['one', 2, 'en']]);
    await visit(page, `/sessions/${id}`);
    let answered = 0;
    await page.route(`**/api/v1/sessions/${id}`, async route => {
      await route.fulfill({ status: 404, contentType: 'text/plain', body: '404 page not found' });
      answered++;
    });
    await seeAgain(page);
    await expect.poll(() => answered).toBe(1);
    await page.unroute(`**/api/v1/sessions/${id}`);
    await rename(page, id, 'another one');
    await seeAgain(page);
    await expect(page.getByTestId('session-title')).toHaveText('another one');
  });

  test.describe('while a page stays in sight', () => {
    test.use({ harkEnv: slowEngine(0.3, ',idle=400') });

    test('is there in time, and what runs is live', async ({ page }) => {
      await visit(page, '/');
      await expect(page.getByTestId('empty')).toBeVisible();
      const id = await add(page, 'talk', 20);
      await expect(rows(page)).toHaveCount(1);
      await expect(page.getByTestId('badge')).toHaveAttribute('data-mode', 'live');
      await page.request.post(`/api/v1/sessions/${id}/cancel`);
      await expect(rows(page).getByTestId('state')).toHaveAttribute('data-state', 'cancelled');
      // Nothing is told of it any more.
      await expect(page.getByTestId('badge')).toHaveAttribute('data-mode', 'off');
      await rename(page, id, 'a talk');
      await expect.poll(() => titles(page)).toEqual(['a talk']);
    });

    test('nothing is asked while nobody sees the page', async ({ page }) => {
      await visit(page, '/');
      await page.evaluate(() => {
        Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
      });
      let asked = 0;
      page.on('request', request => (asked += Number(request.url().includes('list_sessions'))));
      await page.waitForTimeout(2_000);
      expect(asked).toBe(0);
    });
  });
});

for (const width of [390, 1280]) {
  test.describe(`in line, ${width} wide`, () => {
    test.use({ viewport: { width, height: 800 } });

    test('boxes, words and fields', async ({ page }) => {
      await visit(page, '/');
      await addAll(page, [['talk', 1, 'en']]);
      await visit(page, '/');
      await unfold(page);
      const place = (of: string) =>
        page.locator(of).first().evaluate(element => {
          const { left, right, top, bottom } = element.getBoundingClientRect();
          return { left, right, top, middle: (top + bottom) / 2 };
        });
      const [all, words] = [await place('[data-testid=pick-all]'), await place('.selection .check')];
      const [one, row] = [await place('[data-testid=pick]'), await place('[data-testid=session-row]')];
      expect(Math.abs(all.left - one.left)).toBeLessThan(1);
      expect(Math.abs(all.middle - words.middle)).toBeLessThan(1);
      // The two days of a span are beside each other, and the fields end where the rows do.
      const [since, until, order] = [await place('#filter-since'), await place('#filter-until'), await place('#filter-order')];
      expect(since.top).toBe(until.top);
      expect(Math.abs((width > 1000 ? order : until).right - row.right)).toBeLessThan(1);
    });
  });
}

test('a page that comes from the browser\'s cache is loaded anew', async ({ page, allow }) => {
  // The icon of the page outside the app, and the session that was deleted.
  allow(/404/);
  await visit(page, '/');
  const [kept, gone] = await addAll(page, [['kept', 1, 'en'], ['gone', 1, 'en']]);
  await visit(page, '/?q=e');
  await expect.poll(() => titles(page)).toEqual(['gone', 'kept']);
  // A page outside the app.
  await page.goto('/healthz');
  expect((await page.request.delete(`/api/v1/sessions/${gone}`)).ok()).toBe(true);
  await page.goBack();
  await expect.poll(() => titles(page)).toEqual(['kept']);

  await visit(page, `/sessions/${kept}`);
  await page.goto('/healthz');
  expect((await page.request.patch(`/api/v1/sessions/${kept}`, { data: { title: 'renamed' } })).ok()).toBe(true);
  await page.goBack();
  await expect(page.getByTestId('session-title')).toHaveText('renamed');
  await page.goto('/healthz');
  expect((await page.request.delete(`/api/v1/sessions/${kept}`)).ok()).toBe(true);
  await page.goBack();
  await expect(page.getByRole('heading', { name: 'This session isn\'t here' })).toBeVisible();
});

test.describe('with a slow engine', () => {
  test.use({ harkEnv: { ...slowEngine(0.5), HARK_WORKERS: '1' } });

  test('what runs and waits stands on top and is counted', async ({ page }) => {
    await visit(page, '/');
    const long = await add(page, 'runs', 20);
    const waiting = [await add(page, 'waits 1'), await add(page, 'waits 2')];
    await page.request.post(`/api/v1/sessions/${waiting[1]}/cancel`);
    await visit(page, '/?order=title');
    await expect(page.getByTestId('work')).toHaveText(/^1 running, 1 waiting/);
    expect(await titles(page)).toEqual(['runs', 'waits 1', 'waits 2']);
    await visit(page, '/');
    await expect.poll(() => titles(page)).toEqual(['runs', 'waits 1', 'waits 2']);
    await expectGoodLooks(page, 'library-running');
    // Made while the page is open.
    await add(page, 'new');
    await expect.poll(() => titles(page)).toEqual(['runs', 'waits 1', 'new', 'waits 2']);
    const row = (id: string) => page.locator(`[data-session="${id}"]`);
    await row(long).getByTestId('cancel').focus();
    await page.keyboard.press('Enter');
    await expect(row(long).getByTestId('state')).toHaveAttribute('data-state', 'cancelled');
    // Nothing moves, the focus stays in the row, and the text begins as soon as it is there.
    await expect(row(waiting[0]).getByTestId('state')).toHaveAttribute('data-state', 'completed', { timeout: 60_000 });
    await expect(row(waiting[0]).getByTestId('beginning')).toHaveText('line 0');
    expect(await titles(page)).toEqual(['runs', 'waits 1', 'new', 'waits 2']);
    await expect(row(long).getByRole('group', { name: 'Actions' })).toBeFocused();
    await expect(page.getByTestId('work')).toHaveText('', { timeout: 60_000 });
    await page.reload();
    await expect.poll(() => titles(page)).toEqual(['new', 'waits 2', 'waits 1', 'runs']);
  });
});

test.describe('several at once', () => {
  test.use({ harkEnv: { ...slowEngine(0.4), HARK_WORKERS: '1' } });

  test('what fits the selection can be done to it', async ({ page, context }) => {
    await visit(page, '/');
    const done = await add(page, 'done');
    expect(await waitForEnd(page, done)).toBe('completed');
    const [runs, waits] = [await add(page, 'runs', 60), await add(page, 'waits')];
    await visit(page, '/');
    const row = (id: string) => page.locator(`[data-session="${id}"]`);
    const pick = (id: string) => row(id).getByTestId('pick');
    await expect(page.getByTestId('selected-retry')).toBeHidden();
    await pick(done).check();
    await expect(page.getByTestId('selected-count')).toHaveText('1 selected:');
    await expect(page.getByTestId('selected-retry')).toBeDisabled();
    await expect(page.getByTestId('selected-cancel')).toBeDisabled();
    await page.getByTestId('pick-all').check();
    await expect(page.getByTestId('selected-count')).toHaveText('3 selected:');
    await expect(page.getByTestId('selected-cancel')).toHaveText(/Cancel \(2\)/);
    await expectGoodLooks(page, 'library-selected');
    await page.getByTestId('selected-cancel').click();
    for (const id of [runs, waits]) await expect(row(id).getByTestId('state')).toHaveAttribute('data-state', 'cancelled');
    await expect(page.getByTestId('selected-count')).toHaveText('1 selected:');
    const downloading = page.waitForEvent('download');
    await page.getByTestId('selected-download').click();
    expect((await downloading).suggestedFilename()).toBe('Transcripts.zip');

    // Deleted elsewhere meanwhile: that one failed, the other one is queued again.
    await page.getByTestId('pick-all').check();
    await context.request.delete(`/api/v1/sessions/${waits}`);
    await expect(page.getByTestId('selected-retry')).toHaveText(/Retry \((1|2)\)/);
    await page.route('**/api/act_on_sessions*', async route => {
      // The page may know already what was deleted.
      const body = new URLSearchParams(route.request().postData()!);
      if (![...body.values()].includes(waits)) body.append('ids[5]', waits);
      await route.continue({ postData: body.toString() });
    });
    await page.getByTestId('selected-retry').click();
    await expect(page.getByTestId('action-error')).toContainText('1 of 2 could not be queued again.');
    await expect(row(runs).getByTestId('state')).toHaveAttribute('data-state', /queued|processing/);
  });

  test('it works by keyboard', async ({ page }) => {
    await visit(page, '/');
    const ids = [await add(page, 'one', 60), await add(page, 'two', 60)];
    await visit(page, '/');
    await expect(rows(page)).toHaveCount(2);
    await page.getByTestId('pick-all').focus();
    await page.keyboard.press('Space');
    await expect(page.getByTestId('selected-count')).toHaveText('2 selected:');
    const focused = (testid: string) => page.evaluate(id => document.activeElement?.getAttribute('data-testid') === id, testid);
    for (let presses = 0; presses < 10 && !(await focused('selected-cancel')); presses++) await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    for (const id of ids) await expect(page.locator(`[data-session="${id}"]`).getByTestId('state')).toHaveAttribute('data-state', 'cancelled');
    // The menu of a row: Esc closes it, and the focus returns.
    const menu = rows(page).first().getByTestId('menu');
    await menu.focus();
    await page.keyboard.press('Enter');
    await expect(rows(page).first().getByTestId('row-delete')).toBeVisible();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Escape');
    await expect(rows(page).first().getByTestId('row-delete')).toBeHidden();
    await expect(menu).toBeFocused();
    await page.keyboard.press('Enter');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await expect(rows(page)).toHaveCount(1);
    // The next stop is what undoes it.
    await page.keyboard.press('Tab');
    await expect(page.getByTestId('undo')).toBeFocused();
    await page.keyboard.press('Enter');
    await expect(rows(page)).toHaveCount(2);
    await expect(rows(page).first().getByRole('group', { name: 'Actions' })).toBeFocused();
  });

  test.describe('without scripts', () => {
    test.use({ javaScriptEnabled: false });

    test('several are changed by a form, and failures are told', async ({ page }) => {
      await visit(page, '/');
      const ids = [await add(page, 'one', 60), await add(page, 'two', 60)];
      await visit(page, '/?reload=off');
      for (const id of ids) await page.locator(`[data-session="${id}"]`).getByTestId('pick').check();
      await page.getByTestId('selected-cancel').click();
      await expect(page.getByTestId('state')).toHaveText(['Cancelled', 'Cancelled']);
      await page.screenshot({ path: 'artifacts/screenshots/library-no-scripts.png', fullPage: true });
      await page.locator(`[data-session="${ids[0]}"]`).getByTestId('pick').check();
      const downloading = page.waitForEvent('download');
      await page.getByTestId('selected-download-plain').click();
      expect((await downloading).suggestedFilename()).toBe('Transcripts.zip');
      await page.locator(`[data-session="${ids[1]}"]`).getByTestId('pick').check();
      await page.request.delete(`/api/v1/sessions/${ids[1]}`);
      await page.getByTestId('selected-delete-plain').click();
      await page.getByTestId('selected-confirm').click();
      await expect(page.getByTestId('action-error')).toContainText('1 of 2 could not be deleted.');
      await expect(rows(page)).toHaveCount(0);
    });
  });
});

test.describe('deleting', () => {
  const begin = async (page: Page) => {
    await visit(page, '/');
    const ids = await addAll(page, [['one', 1, 'en'], ['two', 1, 'en']]);
    await visit(page, '/');
    return ids;
  };
  const remove = async (page: Page, id: string) => {
    const row = page.locator(`[data-session="${id}"]`);
    await row.getByTestId('menu').click();
    await row.getByTestId('row-delete').click();
    await expect(row).toHaveCount(0);
  };
  const status = async (page: Page, id: string) => (await page.request.get(`/api/v1/sessions/${id}`)).status();

  test('can be undone for ten seconds, longer while one looks at it', async ({ page, context, allow }) => {
    allow(/ERR_FAILED/);
    const ids = await begin(page);
    const tab = await context.newPage();
    await visit(tab, '/');
    await remove(page, ids[0]);
    await expect(page.getByTestId('undo-notice')).toContainText('Deleted “one”.');
    await page.getByTestId('undo-notice').hover();
    await expectGoodLooks(page, 'library-undo');
    await page.getByTestId('undo').click();
    await expect(rows(page)).toHaveCount(2);
    await page.mouse.move(0, 0);

    await page.clock.install();
    await page.clock.pauseAt(Date.now() + 60_000);
    await remove(page, ids[0]);
    await page.getByTestId('undo-notice').hover();
    await page.clock.runFor(30_000);
    expect(await status(page, ids[0])).toBe(200);
    await expect(tab.getByTestId('session-row')).toHaveCount(2);
    await page.mouse.move(0, 0);
    await page.clock.runFor(9_000);
    expect(await status(page, ids[0])).toBe(200);
    await page.clock.runFor(2_000);
    await expect.poll(() => status(page, ids[0])).toBe(404);
    await expect(page.getByTestId('undo-notice')).toBeHidden();
    await expect(tab.getByTestId('session-row')).toHaveCount(1);

    // A session that can't be deleted is there again.
    await page.route('**/api/act_on_sessions*', route => route.abort());
    await remove(page, ids[1]);
    await page.clock.runFor(11_000);
    await expect(page.getByTestId('error-message').filter({ visible: true })).toContainText("can't be reached");
    await expect(rows(page)).toHaveCount(1);
  });

  test('is done when the page is left', async ({ page, context }) => {
    const ids = await begin(page);
    await remove(page, ids[1]);
    // Another page of the app doesn't end it.
    await page.getByTestId('session-title').click();
    await page.waitForURL(/\/sessions\//);
    await expect(page.getByTestId('undo-notice')).toBeVisible();
    expect(await status(page, ids[1])).toBe(200);
    await page.goto('about:blank');
    await expect.poll(async () => (await context.request.get(`/api/v1/sessions/${ids[1]}`)).status()).toBe(404);
    expect(await status(page, ids[0])).toBe(200);
  });

  for (const javaScriptEnabled of [true, false]) {
    test.describe(javaScriptEnabled ? 'on its page' : 'on its page, without scripts', () => {
      test.use({ javaScriptEnabled });

      test(javaScriptEnabled ? 'leads back to the search that led there' : 'leads to the list', async ({ page }) => {
        const ids = await begin(page);
        const extra = await addAll(page, [['one & two?', 1, 'en']]);
        await visit(page, '/?q=one');
        await page.locator(`[data-session="${extra[0]}"]`).getByTestId('session-title').click();
        await page.getByTestId('delete').click();
        await page.getByTestId('confirm-delete').click();
        await page.waitForURL(javaScriptEnabled ? '/?q=one' : '/');
        await expect(rows(page)).toHaveCount(javaScriptEnabled ? 1 : 2);
        if (javaScriptEnabled) await expect(page.locator('#main')).toBeFocused();
        expect(await status(page, extra[0])).toBe(404);
        // Also with what an address has to encode, on a page that was loaded.
        await visit(page, `/?q=${encodeURIComponent('"one"')}&order=title`);
        await visit(page, `/sessions/${ids[0]}`);
        await page.getByTestId('delete').click();
        await page.getByTestId('confirm-delete').click();
        await page.waitForURL(javaScriptEnabled ? '/?q=%22one%22&order=title' : '/');
        expect(await status(page, ids[0])).toBe(404);
      });
    });
  }

  test('texts are copied and downloaded in the row', async ({ page, context }) => {
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const [id] = await begin(page);
    const row = page.locator(`[data-session="${id}"]`);
    await row.getByTestId('row-copy').click();
    await expect(row.getByTestId('row-copy')).toContainText('Copied');
    expect((await page.evaluate(() => navigator.clipboard.readText())).trim()).toBe('line 0');
    const downloading = page.waitForEvent('download');
    await row.getByTestId('row-txt').click();
    expect((await downloading).suggestedFilename()).toBe('one.txt');
  });
});

for (const width of [390, 1280]) {
  test.describe(`in the dark, ${width} wide`, () => {
    test.use({ colorScheme: 'dark', viewport: { width, height: 800 } });

    test('everything can be read', async ({ page }) => {
      await visit(page, '/');
      await addAll(page, [['A talk about nothing in particular that has a rather long title, longer than a phone is wide', 9, 'en'], ['two', 1, 'de'], ['three', 1, 'de']]);
      await visit(page, '/?language=en');
      await expect(rows(page)).toHaveCount(1);
      await visit(page, '/');
      await unfold(page);
      await page.getByTestId('pick').first().check();
      await rows(page).last().getByTestId('menu').click();
      await rows(page).last().getByTestId('row-delete').hover();
      await expectGoodLooks(page, `library-dark-${width}`);
      await rows(page).last().getByTestId('row-delete').click();
      await page.getByTestId('undo-notice').hover();
      await expectGoodLooks(page, `library-dark-undo-${width}`);
    });
  });
}
