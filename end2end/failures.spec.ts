// What goes wrong on the way between a server and a page. In each case the page comes to the whole transcript and the
// last status without a reload, and says truthfully how it gets its updates.
import { type Page } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import { expect, test, visit } from './fixtures.ts';
import { startNginx } from './nginx.ts';
import { create, ended } from './sessions.ts';
import { clip } from './speech.ts';
import { NOISE, badge, expectWhole, lines, slow, start } from './tones.ts';

const STREAM = '**/api/v1/status/stream*';

test.describe('a stream that does not come', () => {
  test.use({ harkEnv: slow(0.5) });

  const ways = {
    'answered with 500': { status: 500, body: 'no' },
    'answered with 404': { status: 404, body: 'no' },
    'of the wrong content type': { status: 200, contentType: 'text/html', body: '<p>Please log in</p>' },
  };
  for (const [name, answer] of Object.entries(ways)) {
    test(name, async ({ page, allow }) => {
      allow(NOISE);
      await page.route(STREAM, route => route.fulfill(answer));
      await start(page, 12);
      await badge(page, 'polling');
      await lines(page, 3);
      // Once it is let through, the page notices by itself.
      await page.unroute(STREAM);
      await badge(page, 'live');
      await expectWhole(page, 12);
    });
  }

  test('with the connection refused', async ({ page, allow }) => {
    allow(NOISE);
    await page.route(STREAM, route => route.abort('connectionrefused'));
    await start(page, 8);
    await badge(page, 'polling');
    await expectWhole(page, 8);
  });

  test('because a proxy holds it back', async ({ page, hark, allow }) => {
    allow(NOISE);
    // With HTTP/1.0 to the server, nginx's default for long, an answer is passed on once a buffer is full.
    const proxy = await startNginx(
      hark.url,
      'proxy_http_version 1.0; proxy_buffering on; proxy_buffers 8 64k; proxy_buffer_size 64k; proxy_ignore_headers X-Accel-Buffering;',
    );
    try {
      await start(page, 10, proxy.url);
      await badge(page, 'polling');
      await lines(page, 2);
      await expectWhole(page, 10);
    } finally {
      await proxy.stop();
    }
  });
});

test.describe('a compressed stream', () => {
  test.use({ harkEnv: slow(0.5) });

  /** Whether each stream that was answered said that it is compressed. */
  const encodings = (page: Page) => {
    const seen: (string | null)[] = [];
    page.on('response', async response => {
      if (new URL(response.url()).pathname.endsWith('/status/stream')) seen.push(await response.headerValue('content-encoding'));
    });
    return seen;
  };

  test('passes a proxy that compresses by itself', async ({ page, hark, allow }) => {
    allow(NOISE);
    const proxy = await startNginx(
      hark.url,
      'proxy_http_version 1.1; proxy_buffering off; gzip on; gzip_types text/event-stream; gzip_proxied any; gzip_min_length 1;',
    );
    const seen = encodings(page);
    try {
      await start(page, 8, proxy.url);
      await badge(page, 'live');
      await expectWhole(page, 8);
      expect(new Set(seen)).toEqual(new Set(['gzip']));
    } finally {
      await proxy.stop();
    }
  });

  test('is not asked for again where a proxy spoils it', async ({ page, hark, allow }) => {
    allow(NOISE);
    // What it calls gzip isn't.
    const proxy = await startNginx(
      hark.url,
      'proxy_http_version 1.1; proxy_buffering off; proxy_set_header Accept-Encoding ""; add_header Content-Encoding $arg_compress;',
    );
    const seen = encodings(page);
    try {
      await start(page, 12, proxy.url);
      await badge(page, 'live');
      await expectWhole(page, 12);
      expect(seen.slice(0, 2)).toEqual(['gzip', null]);
      expect(seen.slice(2).filter(encoding => encoding !== null)).toEqual([]);
    } finally {
      await proxy.stop();
    }
  });
});

test.describe('a stream that breaks', () => {
  test.describe('because a proxy cuts idle connections', () => {
    // Longer between two lines than the proxy's timeout.
    test.use({ harkEnv: slow(2.5) });

    test('again and again', async ({ page, hark, allow }) => {
      allow(NOISE);
      const proxy = await startNginx(hark.url, 'proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 1s;');
      try {
        await start(page, 5, proxy.url);
        await expectWhole(page, 5);
      } finally {
        await proxy.stop();
      }
    });
  });

  test.describe('while a session runs', () => {
    test.use({ harkEnv: slow(0.4) });

    test('because the server is killed and comes back', async ({ page, hark, allow }) => {
      allow(NOISE);
      await start(page, 25);
      await badge(page, 'live');
      await lines(page, 3);
      await hark.kill();
      await expect(page.getByTestId('badge')).not.toHaveAttribute('data-mode', 'live');
      await page.waitForTimeout(3_000);
      await hark.restart();
      await badge(page, 'live', 30_000);
      await expectWhole(page, 25);
    });

    test('because the browser is offline for a while', async ({ page, context, allow }) => {
      allow(NOISE);
      await start(page, 45);
      await badge(page, 'live');
      await lines(page, 2);
      await context.setOffline(true);
      await page.waitForTimeout(6_000);
      await context.setOffline(false);
      await badge(page, 'live', 30_000);
      await expectWhole(page, 45);
    });

    test('because the page is hidden and frozen, and shown again', async ({ page, context, allow }) => {
      allow(NOISE);
      await start(page, 45);
      await badge(page, 'live');
      await lines(page, 2);
      // A window of a test always counts as seen, so the page is told otherwise; the freezing is real.
      const see = (visibility: string) =>
        page.evaluate(visibility => {
          Object.defineProperty(document, 'visibilityState', { value: visibility, configurable: true });
          document.dispatchEvent(new Event('visibilitychange'));
        }, visibility);
      await see('hidden');
      const devtools = await context.newCDPSession(page);
      await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
      // Longer than a stream may be silent.
      await new Promise(resolve => setTimeout(resolve, 5_000));
      await devtools.send('Page.setWebLifecycleState', { state: 'active' });
      await see('visible');
      await badge(page, 'live', 30_000);
      await expectWhole(page, 45);
    });

    for (const [name, hours] of [['ahead', 1], ['behind', -1]] as const) {
      test(`never, although the clock of the browser is an hour ${name}`, async ({ page }) => {
        await page.addInitScript(ms => {
          const Right = Date;
          const now = Right.now;
          (window as any).Date = new Proxy(Right, {
            construct: (_, args: []) => (args.length > 0 ? new Right(...args) : new Right(now() + ms)),
            get: (target, key) => (key === 'now' ? () => now() + ms : Reflect.get(target, key)),
          });
        }, hours * 3_600_000);
        await start(page, 50);
        await badge(page, 'live');
        await lines(page, 2);
        await expect(page.getByTestId('updated')).toContainText(/updated (just now|[1-9] s ago)/);
        // Some seconds to go, by the server's clock.
        await expect(page.getByTestId('eta')).toContainText(/, in \d+ s$/);
        await badge(page, 'live');
        await expectWhole(page, 50);
      });
    }
  });
});

test.describe('a page that can not be loaded', () => {
  test.use({ harkEnv: slow(0.4) });

  const sessions = (page: Page) => page.getByRole('link', { name: 'Sessions', exact: true }).first();
  const refusal = (page: Page) => page.getByRole('heading', { name: "This couldn't be loaded" });
  const rows = (page: Page) => page.getByTestId('session-row');

  test('is loaded once the network is back', async ({ page, context, allow }) => {
    allow(NOISE);
    await start(page, 20);
    await context.setOffline(true);
    await sessions(page).click();
    await expect(refusal(page)).toBeVisible();
    await expect(rows(page)).toHaveCount(0);
    await context.setOffline(false);
    await expect(rows(page)).toHaveCount(1);
    await expect(refusal(page)).toHaveCount(0);
    expect(await page.evaluate(() => (window as any).marked), 'the page was never loaded again').toBe(true);
  });

  test('is loaded once the server is back', async ({ page, hark, allow }) => {
    allow(NOISE);
    await start(page, 20);
    await hark.kill();
    await sessions(page).click();
    await expect(refusal(page)).toBeVisible();
    await expect(page.getByText('This page keeps trying by itself.')).toBeVisible();
    // It asks again, and says nothing again: a screen reader would read it out each time.
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
    await expect(refusal(page)).toHaveCount(0);
  });

  test('although it came with the error, is loaded once it can be', async ({ page, hark, allow }) => {
    allow(/status of 500/);
    const id = await create(page, clip('wav'));
    expect(await ended(page, id)).toBe('completed');
    const rename = (from: string, to: string) =>
      execFileSync('python3', [
        '-c',
        `import sqlite3; sqlite3.connect('${hark.data}/hark.sqlite', timeout=20).execute('ALTER TABLE ${from} RENAME TO ${to}')`,
      ]);
    for (const [address, loaded] of [['/', rows(page)], [`/sessions/${id}`, page.getByTestId('segment').first()]] as const) {
      rename('sessions', 'elsewhere');
      const response = await visit(page, address);
      expect(response!.status()).toBe(500);
      await expect(refusal(page)).toHaveCount(1);
      await expect(page.getByText('This page keeps trying by itself.')).toBeVisible();
      rename('elsewhere', 'sessions');
      await expect(loaded).toBeVisible({ timeout: 60_000 });
      await expect(refusal(page)).toHaveCount(0);
    }
  });
});
