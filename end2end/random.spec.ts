// Random sequences of what people, networks and servers do, in several tabs. Afterwards every page must show the current state,
// without any error in a console. The seed in a test's name repeats the actions, but not their timing.
// `make random` searches for faults that the other tests don't find, with the seeds in SEEDS=200-240; each fault that it finds
// gets a test of its own.
import { type Locator, type Page } from '@playwright/test';
import { expect, test } from './fixtures.ts';
import { NETWORK_ERRORS, slowEngine, tone } from './tones.ts';

test.use({ harkEnv: { ...slowEngine(0.15), HARK_WORKERS: '2' } });

const STEPS = 60;
/** The timeouts of an action and of a navigation, in ms. Many actions aren't possible on the current page. */
const ACTION_TIMEOUT = 500;
const NAVIGATION_TIMEOUT = 3_000;
/** The timeout of the final checks: a page that couldn't be loaded may wait half a minute before it tries again. */
const FINAL = { timeout: 60_000 };

/** A generator of pseudorandom numbers from 0 to 1 (mulberry32). */
function numbers(seed: number) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The value of a promise, or undefined if it takes too long: on the browser's error pages some promises never settle. */
function inTime<T>(what: Promise<T>): Promise<T | undefined> {
  return Promise.race([what, new Promise<undefined>(resolve => setTimeout(resolve, 2 * NAVIGATION_TIMEOUT))]);
}

const [first = 1, last = first] = (process.env.HARK_SEEDS ?? '1-10').split('-').map(Number);
for (let seed = first; seed <= last; seed++) {
  test(`pages recover from random actions, seed ${seed}`, async ({ page, context, hark, allow }) => {
    allow(NETWORK_ERRORS);
    // Loading the app's own files may fail too.
    allow(/Failed to fetch|^uncaught: $/);
    const random = numbers(seed);
    const below = (limit: number) => Math.floor(random() * limit);
    const pick = <T>(list: T[]): T => list[below(list.length)]!;

    const pages = [page];
    const ids: string[] = [];
    let [down, offline] = [false, false];
    const create = async () => {
      if (down || offline) return;
      const file = { name: `part ${ids.length}.wav`, mimeType: 'audio/wav', buffer: tone(5 + below(60)) };
      const response = await page.request.post('/api/v1/sessions', { multipart: { file } });
      if (response.ok()) ids.push(((await response.json()) as { id: string }).id);
    };
    const setOffline = (is: boolean) => {
      offline = is;
      return context.setOffline(is);
    };
    const click = (where: Locator) => where.first().click({ timeout: ACTION_TIMEOUT });
    const randomPath = () => (random() < 0.5 ? '/' : `/sessions/${pick(ids)}`);

    const actions: Record<string, (page: Page) => Promise<unknown>> = {
      load: page => page.goto(randomPath(), { timeout: NAVIGATION_TIMEOUT }),
      reload: page => page.reload({ timeout: NAVIGATION_TIMEOUT }),
      back: page => page.goBack({ timeout: NAVIGATION_TIMEOUT }),
      forward: page => page.goForward({ timeout: NAVIGATION_TIMEOUT }),
      'open a session': page => click(page.locator('a[data-testid=session-title]')),
      'open the list': page => click(page.getByRole('link', { name: 'Sessions' })),
      'open the upload': page => click(page.getByRole('link', { name: 'New transcription' })),
      search: page => page.getByTestId('search').fill(pick(['part', '1', 'nothing', '']), { timeout: ACTION_TIMEOUT }),
      scroll: page => page.mouse.wheel(0, below(2_000) - 1_000),
      upload: create,
      cancel: page => click(page.getByTestId('cancel')),
      retry: page => click(page.getByTestId('retry')),
      delete: async page => {
        if (new URL(page.url()).pathname === '/') {
          await click(page.getByTestId('menu'));
          await click(page.getByTestId('row-delete').filter({ visible: true }));
          if (random() < 0.6) await click(page.getByTestId('undo'));
          return;
        }
        await click(page.getByTestId('delete'));
        if (random() < 0.4) await click(page.getByTestId('confirm-delete'));
      },
      'new tab': async () => {
        if (pages.length === 5) return;
        const tab = await context.newPage();
        pages.push(tab);
        await tab.goto(randomPath(), { timeout: NAVIGATION_TIMEOUT });
      },
      'close a tab': async page => {
        if (pages.length === 1) return;
        pages.splice(pages.indexOf(page), 1);
        await page.close();
      },
      'go offline': () => setOffline(true),
      'go online': () => setOffline(false),
      'kill the server': async () => {
        if (!down) await hark.kill();
        down = true;
      },
      'start the server': async () => {
        if (down) await hark.restart();
        down = false;
      },
      wait: page => page.waitForTimeout(below(1_500)),
    };

    await create();
    await page.goto('/');
    const done: string[] = [];
    for (let step = 0; step < STEPS; step++) {
      const action = pick(Object.keys(actions));
      done.push(action);
      const actionDone = actions[action]!(pick(pages)).catch(() => done.push('(not possible)'));
      await (action.endsWith('the server') ? actionDone : inTime(actionDone));
    }
    test.info().annotations.push({ type: 'done', description: done.join(', ') });

    await actions['go online']!(page);
    await actions['start the server']!(page);
    for (const page of pages) {
      // The browser's own error page can't recover, and neither can a page that was never loaded.
      const alive = page.url().startsWith(hark.url) && (await inTime(page.locator('main').count()));
      if (!alive) await page.goto('/');
    }
    // What can still be undone is in no list.
    for (const page of pages) await expect(page.getByTestId('undo-notice')).toBeHidden(FINAL);
    const read = async (path: string) => (await page.request.get(`/api/v1/${path}`)).json();
    const sessions = async () => (await read('sessions?limit=200')).sessions as { id: string; status: { status: string } }[];
    const running = async () => (await sessions()).filter(s => ['queued', 'processing'].includes(s.status.status)).length;
    await expect.poll(running, { timeout: 120_000 }).toBe(0);
    const all = await sessions();
    for (const page of pages) {
      const { pathname, search } = new URL(page.url());
      for (const { id, status } of all) {
        if (pathname === `/sessions/${id}`) {
          await expect(page.getByTestId('state').first(), id).toHaveAttribute('data-state', status.status, FINAL);
          const { segments } = await read(`sessions/${id}/segments`);
          await expect(page.getByTestId('segment'), id).toHaveCount(segments.length);
        }
        if (pathname === '/' && search === '') {
          const state = page.locator(`[data-session="${id}"]`).getByTestId('state');
          await expect(state, `${id} in the list`).toHaveAttribute('data-state', status.status, FINAL);
        }
      }
      if (pathname === '/' && search === '') await expect(page.getByTestId('session-row')).toHaveCount(all.length);
    }
  });
}
