// Failures of the connection between a server and a page. In each case the page shows the whole transcript and the last status
// without a reload, and the correct mode of its updates.
import { type Page } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import { expect, test, visit } from './fixtures.ts';
import { BUFFERING, startNginx } from './nginx.ts';
import { create, waitForEnd } from './sessions.ts';
import { clip } from './speech.ts';
import { NETWORK_ERRORS, expectBadge, expectWholeTranscript, expectLines, slowEngine, startSession } from './tones.ts';

const STREAM = '**/api/v1/status/stream*';

test.describe('the page polls if the stream', () => {
  test.use({ harkEnv: slowEngine(0.5) });

  const answers = {
    'is answered with 500': { status: 500, body: 'no' },
    'is answered with 404': { status: 404, body: 'no' },
    'has the wrong content type': { status: 200, contentType: 'text/html', body: '<p>Please log in</p>' },
  };
  for (const [name, answer] of Object.entries(answers)) {
    test(name, async ({ page, allow }) => {
      allow(NETWORK_ERRORS);
      await page.route(STREAM, route => route.fulfill(answer));
      await startSession(page, 12);
      await expectBadge(page, 'polling');
      await expectLines(page, 3);
      // When streams work again, the page notices by itself.
      await page.unroute(STREAM);
      await expectBadge(page, 'live');
      await expectWholeTranscript(page, 12);
    });
  }

  test('is refused a connection', async ({ page, allow }) => {
    allow(NETWORK_ERRORS);
    await page.route(STREAM, route => route.abort('connectionrefused'));
    await startSession(page, 8);
    await expectBadge(page, 'polling');
    await expectWholeTranscript(page, 8);
  });

  test('is buffered by a proxy', async ({ page, hark, allow }) => {
    allow(NETWORK_ERRORS);
    // With HTTP/1.0 to the server, which was long nginx's default, nginx sends an answer on only when a buffer is full.
    const proxy = await startNginx(hark.url, BUFFERING);
    try {
      await startSession(page, 10, proxy.url);
      await expectBadge(page, 'polling');
      await expectLines(page, 2);
      await expectWholeTranscript(page, 10);
    } finally {
      await proxy.stop();
    }
  });
});

test.describe('a compressed stream', () => {
  test.use({ harkEnv: slowEngine(0.5) });

  /** The content encodings of the streams that were answered. */
  const encodings = (page: Page) => {
    const seen: (string | null)[] = [];
    page.on('response', async response => {
      if (new URL(response.url()).pathname.endsWith('/status/stream')) seen.push(await response.headerValue('content-encoding'));
    });
    return seen;
  };

  test('passes a proxy that compresses by itself', async ({ page, hark, allow }) => {
    allow(NETWORK_ERRORS);
    const proxy = await startNginx(
      hark.url,
      'proxy_http_version 1.1; proxy_buffering off; gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 1;',
    );
    const seen = encodings(page);
    try {
      await startSession(page, 8, proxy.url);
      await expectBadge(page, 'live');
      await expectWholeTranscript(page, 8);
      expect(new Set(seen)).toEqual(new Set(['gzip']));
    } finally {
      await proxy.stop();
    }
  });

  test('is not requested again after a proxy has corrupted one', async ({ page, hark, allow }) => {
    allow(NETWORK_ERRORS);
    // The proxy labels an uncompressed stream as gzip.
    const proxy = await startNginx(
      hark.url,
      'proxy_http_version 1.1; proxy_buffering off; proxy_set_header Accept-Encoding ""; add_header Content-Encoding $arg_compress;',
    );
    const seen = encodings(page);
    try {
      await startSession(page, 12, proxy.url);
      await expectBadge(page, 'live');
      await expectWholeTranscript(page, 12);
      expect(seen.slice(0, 2)).toEqual(['gzip', null]);
      expect(seen.slice(2).filter(encoding => encoding !== null)).toEqual([]);
    } finally {
      await proxy.stop();
    }
  });
});

test.describe('the page recovers', () => {
  test.describe('behind a proxy', () => {
    // The time between two lines is longer than the proxy's timeout.
    test.use({ harkEnv: slowEngine(2.5) });

    test('each time that the proxy closes an idle connection', async ({ page, hark, allow }) => {
      allow(NETWORK_ERRORS);
      const proxy = await startNginx(hark.url, 'proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 1s;');
      try {
        await startSession(page, 5, proxy.url);
        await expectWholeTranscript(page, 5);
      } finally {
        await proxy.stop();
      }
    });
  });

  test.describe('while a session runs', () => {
    test.use({ harkEnv: slowEngine(0.4) });

    test('after the server is killed and restarted', async ({ page, hark, allow }) => {
      allow(NETWORK_ERRORS);
      await startSession(page, 25);
      await expectBadge(page, 'live');
      await expectLines(page, 3);
      await hark.kill();
      await expect(page.getByTestId('badge')).not.toHaveAttribute('data-mode', 'live');
      await page.waitForTimeout(3_000);
      await hark.restart();
      await expectBadge(page, 'live', 30_000);
      await expectWholeTranscript(page, 25);
    });

    test('after the browser was offline for a while', async ({ page, context, allow }) => {
      allow(NETWORK_ERRORS);
      await startSession(page, 45);
      await expectBadge(page, 'live');
      await expectLines(page, 2);
      await context.setOffline(true);
      await page.waitForTimeout(6_000);
      await context.setOffline(false);
      await expectBadge(page, 'live', 30_000);
      await expectWholeTranscript(page, 45);
    });

    test('after it was hidden and frozen', async ({ page, context, allow }) => {
      allow(NETWORK_ERRORS);
      await startSession(page, 45);
      await expectBadge(page, 'live');
      await expectLines(page, 2);
      // A test window always counts as visible, so its visibility is faked; the freezing is real.
      const setVisibility = (visibility: string) =>
        page.evaluate(visibility => {
          Object.defineProperty(document, 'visibilityState', { value: visibility, configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        }, visibility);
      await setVisibility('hidden');
      const devtools = await context.newCDPSession(page);
      await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
      // Longer than the timeout of a silent stream.
      await new Promise(resolve => setTimeout(resolve, 5_000));
      await devtools.send('Page.setWebLifecycleState', { state: 'active' });
      await setVisibility('visible');
      await expectBadge(page, 'live', 30_000);
      await expectWholeTranscript(page, 45);
    });

    for (const [name, hours] of [['ahead', 1], ['behind', -1]] as const) {
      test(`if the clock of the browser is an hour ${name}, and shows correct times`, async ({ page }) => {
        await page.addInitScript(ms => {
          const RealDate = Date;
          const now = RealDate.now;
          (window as any).Date = new Proxy(RealDate, {
            construct: (_, args: []) => (args.length > 0 ? new RealDate(...args) : new RealDate(now() + ms)),
            get: (target, key) => (key === 'now' ? () => now() + ms : Reflect.get(target, key)),
          });
        }, hours * 3_600_000);
        await startSession(page, 50);
        await expectBadge(page, 'live');
        await expectLines(page, 2);
        await expect(page.getByTestId('updated')).toContainText(/updated (just now|[1-9] s ago)/);
        // The remaining time is computed by the server's clock.
        await expect(page.getByTestId('eta')).toContainText(/, in \d+ s$/);
        await expectBadge(page, 'live');
        await expectWholeTranscript(page, 50);
      });
    }
  });
});

test.describe('a page that could not be loaded', () => {
  test.use({ harkEnv: slowEngine(0.4) });

  const sessions = (page: Page) => page.getByRole('link', { name: 'Sessions', exact: true }).first();
  const loadError = (page: Page) => page.getByRole('heading', { name: "This couldn't be loaded" });
  const rows = (page: Page) => page.getByTestId('session-row');

  test('is loaded once the network is back', async ({ page, context, allow }) => {
    allow(NETWORK_ERRORS);
    await startSession(page, 20);
    await context.setOffline(true);
    await sessions(page).click();
    await expect(loadError(page)).toBeVisible();
    await expect(rows(page)).toHaveCount(0);
    await context.setOffline(false);
    await expect(rows(page)).toHaveCount(1);
    await expect(loadError(page)).toHaveCount(0);
    expect(await page.evaluate(() => (window as any).marked), 'the page was never loaded again').toBe(true);
  });

  test('is loaded once the server is back', async ({ page, hark, allow }) => {
    allow(NETWORK_ERRORS);
    await startSession(page, 20);
    await hark.kill();
    await sessions(page).click();
    await expect(loadError(page)).toBeVisible();
    await expect(page.getByText('This page keeps trying by itself.')).toBeVisible();
    // A retry that fails must not change the page, because a screen reader would announce it each time.
    await page.evaluate(() => {
      (window as any).changes = 0;
      const main = document.querySelector('main')!;
      new MutationObserver(seen => ((window as any).changes += seen.length)).observe(main, {
        subtree: true, childList: true, characterData: true, attributes: true,
      });
    });
    const failed = () => page.waitForEvent('requestfailed', request => request.url().includes('list_sessions'));
    await failed();
    await failed();
    expect(await page.evaluate(() => (window as any).changes)).toBe(0);
    await hark.restart();
    await expect(rows(page)).toHaveCount(1, { timeout: 60_000 });
    await expect(loadError(page)).toHaveCount(0);
  });

  test('and was rendered with the error by the server, is loaded once it can be', async ({ page, hark, allow }) => {
    allow(/status of 500/);
    const id = await create(page, clip('wav'));
    expect(await waitForEnd(page, id)).toBe('completed');
    // Without a look at the triggers: they use what Python's SQLite may be too old for.
    const rename = (from: string, to: string) =>
      execFileSync('python3', [
        '-c',
        `import sqlite3; db = sqlite3.connect('${hark.data}/hark.sqlite', timeout=20); ` +
          `db.execute('PRAGMA legacy_alter_table=ON'); db.execute('ALTER TABLE ${from} RENAME TO ${to}')`,
      ]);
    for (const [address, loaded] of [['/', rows(page)], [`/sessions/${id}`, page.getByTestId('segment').first()]] as const) {
      rename('sessions', 'elsewhere');
      const response = await visit(page, address);
      expect(response!.status()).toBe(500);
      await expect(loadError(page)).toHaveCount(1);
      await expect(page.getByText('This page keeps trying by itself.')).toBeVisible();
      rename('elsewhere', 'sessions');
      await expect(loaded).toBeVisible({ timeout: 60_000 });
      await expect(loadError(page)).toHaveCount(0);
    }
  });
});
