// What nobody thought of: people, networks and servers do things at random, in several tabs. Afterwards every page shows
// what is so, and none has complained. A run is named by its seed, which repeats what is done, though not its timing.
// `make random` looks for what the other tests don't know yet, and SEEDS=200-240 says where; what it finds gets a test of
// its own.
import { type Locator, type Page } from '@playwright/test';
import { expect, test } from './fixtures.ts';
import { NOISE, slow, tone } from './tones.ts';

test.use({ harkEnv: { ...slow(0.15), HARK_WORKERS: '2' } });

const STEPS = 60;
/** How long a step may take, in ms: many can't be done on the page they come to. */
const SOON = 500;
const LATER = 3_000;
/** How long a page has to show what is so: one that couldn't be loaded may wait half a minute before it tries again. */
const PATIENCE = { timeout: 60_000 };

/** Numbers from 0 to 1 that look random and are the same for the same seed (mulberry32). */
function numbers(seed: number) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What something comes to, or nothing if it takes too long: on the browser's error pages some things never end. */
function inTime<T>(what: Promise<T>): Promise<T | undefined> {
  return Promise.race([what, new Promise<undefined>(resolve => setTimeout(resolve, 2 * LATER))]);
}

const [first = 1, last = first] = (process.env.HARK_SEEDS ?? '1-10').split('-').map(Number);
for (let seed = first; seed <= last; seed++) {
  test(`seed ${seed}`, async ({ page, context, hark, allow }) => {
    allow(NOISE);
    // The app's own files may not come either.
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
    const offlineIs = (is: boolean) => {
      offline = is;
      return context.setOffline(is);
    };
    const click = (where: Locator) => where.first().click({ timeout: SOON });
    const anywhere = () => (random() < 0.5 ? '/' : `/sessions/${pick(ids)}`);

    const deeds: Record<string, (page: Page) => Promise<unknown>> = {
      load: page => page.goto(anywhere(), { timeout: LATER }),
      reload: page => page.reload({ timeout: LATER }),
      back: page => page.goBack({ timeout: LATER }),
      forward: page => page.goForward({ timeout: LATER }),
      'open a session': page => click(page.locator('a[data-testid=session-title]')),
      'open the list': page => click(page.getByRole('link', { name: 'Sessions' })),
      'open the upload': page => click(page.getByRole('link', { name: 'New transcription' })),
      search: page => page.getByTestId('search').fill(pick(['part', '1', 'nothing', '']), { timeout: SOON }),
      scroll: page => page.mouse.wheel(0, below(2_000) - 1_000),
      upload: create,
      cancel: page => click(page.getByTestId('cancel')),
      retry: page => click(page.getByTestId('retry')),
      delete: async page => {
        await click(page.getByTestId('delete'));
        if (random() < 0.4) await click(page.getByTestId('confirm-delete'));
      },
      'new tab': async () => {
        if (pages.length === 5) return;
        const tab = await context.newPage();
        pages.push(tab);
        await tab.goto(anywhere(), { timeout: LATER });
      },
      'close a tab': async page => {
        if (pages.length === 1) return;
        pages.splice(pages.indexOf(page), 1);
        await page.close();
      },
      'go offline': () => offlineIs(true),
      'go online': () => offlineIs(false),
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
      const deed = pick(Object.keys(deeds));
      done.push(deed);
      const deedDone = deeds[deed]!(pick(pages)).catch(() => done.push('(not now)'));
      await (deed.endsWith('the server') ? deedDone : inTime(deedDone));
    }
    test.info().annotations.push({ type: 'done', description: done.join(', ') });

    await deeds['go online']!(page);
    await deeds['start the server']!(page);
    for (const page of pages) {
      // The browser's own error page can't come to life, nor can one that was never loaded.
      const alive = page.url().startsWith(hark.url) && (await inTime(page.locator('main').count()));
      if (!alive) await page.goto('/');
    }
    const read = async (path: string) => (await page.request.get(`/api/v1/${path}`)).json();
    const sessions = async () => (await read('sessions?limit=200')).sessions as { id: string; status: { status: string } }[];
    const running = async () => (await sessions()).filter(s => ['queued', 'processing'].includes(s.status.status)).length;
    await expect.poll(running, { timeout: 120_000 }).toBe(0);
    const all = await sessions();
    for (const page of pages) {
      const { pathname, search } = new URL(page.url());
      for (const { id, status } of all) {
        if (pathname === `/sessions/${id}`) {
          await expect(page.getByTestId('state').first(), id).toHaveAttribute('data-state', status.status, PATIENCE);
          const { segments } = await read(`sessions/${id}/segments`);
          await expect(page.getByTestId('segment'), id).toHaveCount(segments.length);
        }
        if (pathname === '/' && search === '') {
          const state = page.locator(`[data-session="${id}"]`).getByTestId('state');
          await expect(state, `${id} in the list`).toHaveAttribute('data-state', status.status, PATIENCE);
        }
      }
      if (pathname === '/' && search === '') await expect(page.getByTestId('session-row')).toHaveCount(all.length);
    }
  });
}
