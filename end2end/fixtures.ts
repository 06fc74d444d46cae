// Fixtures: a server for each test, and pages on which any console error or uncaught exception fails the test.
import { AxeBuilder } from '@axe-core/playwright';
import { test as base, expect, type Browser, type BrowserContext, type BrowserContextOptions, type Page } from '@playwright/test';
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

export { expect };

const ROOT = path.resolve(import.meta.dirname, '..');
const BIN = path.resolve(import.meta.dirname, process.env.HARK_BIN ?? '../target/released/hark');

/** A running server. */
export interface Hark {
  url: string;
  pid: number;
  /** The folder of its data. */
  data: string;
  /** What it has written so far. */
  log(): string;
  /** Stops it, as an operator would. */
  stop(): Promise<void>;
  /** Kills it, as a crash would. */
  kill(): Promise<void>;
  /** Starts it again, with the same address and data, and with these settings changed. */
  restart(changed?: Record<string, string>): Promise<void>;
}

/** Allows console errors that match a pattern. All others fail the test. */
export type Allow = (pattern: RegExp) => void;

interface Fixtures {
  /** Settings of the server as environment variables, for `test.use`. */
  harkEnv: Record<string, string>;
  hark: Hark;
  allow: Allow;
  problems: { watch(context: BrowserContext): void };
  /** A page in another person's browser: its own cookies, the same checks. */
  someone: (options?: BrowserContextOptions) => Promise<Page>;
}

export const test = base.extend<Fixtures>({
  harkEnv: [{}, { option: true }],

  hark: async ({ harkEnv }, use, info) => {
    const data = await mkdtemp(path.join(tmpdir(), 'hark-test-'));
    const address = `127.0.0.1:${await freePort()}`;
    const url = `http://${address}`;
    let log = '';
    const start = async (changed: Record<string, string> = {}) => {
      const child = spawn(BIN, ['serve'], {
        cwd: ROOT,
        env: { ...process.env, LEPTOS_SITE_ADDR: address, HARK_DATA_DIR: data, HARK_ENGINE: 'pocketsphinx', HARK_MODEL_FETCH: 'false', ...harkEnv, ...changed },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let failed: string | undefined;
      child.stdout.on('data', chunk => (log += chunk));
      child.stderr.on('data', chunk => (log += chunk));
      child.on('error', error => (failed = `could not start ${BIN}: ${error.message}`));
      const exited = new Promise<void>(resolve => child.on('close', () => resolve()));
      for (let waited = 0; ; waited += 50) {
        if (failed !== undefined) throw new Error(failed);
        if (child.exitCode !== null) throw new Error(`hark ended with ${child.exitCode}:\n${log}`);
        if (waited > 20_000) throw new Error(`hark doesn't answer:\n${log}`);
        if (await fetch(`${url}/healthz`).then(r => r.ok, () => false)) break;
        await new Promise(resolve => setTimeout(resolve, 50));
      }
      return { child, exited };
    };

    let running = await start();
    const end = async (signal: 'SIGTERM' | 'SIGKILL') => {
      const { child, exited } = running;
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill(signal);
      const killer = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await exited;
      clearTimeout(killer);
    };
    try {
      await use({
        url,
        pid: running.child.pid!,
        data,
        log: () => log,
        stop: () => end('SIGTERM'),
        kill: () => end('SIGKILL'),
        restart: async changed => {
          running = await start(changed);
        },
      });
    } finally {
      await end('SIGTERM');
      if (info.status !== info.expectedStatus) {
        await info.attach('server.log', { body: log, contentType: 'text/plain' });
      }
      await rm(data, { recursive: true, force: true });
    }
    expect(log.split('\n').filter(isMisuse), 'the server\'s log').toEqual([]);
  },

  baseURL: async ({ hark }, use) => use(hark.url),

  allow: async ({}, use) => {
    await use(pattern => allowed().push(pattern));
  },

  problems: async ({}, use) => {
    const problems: string[] = [];
    allowed().length = 0;
    await use({
      watch(context) {
        context.on('console', message => {
          if (message.type() === 'error') problems.push(`${message.text()} (${message.location().url})`);
        });
        context.on('weberror', error => problems.push(`uncaught: ${error.error().stack ?? error.error().message}`));
      },
    });
    expect(problems.filter(problem => !allowed().some(pattern => pattern.test(problem))), 'the console').toEqual([]);
  },

  context: async ({ context, problems }, use) => {
    problems.watch(context);
    await use(context);
  },

  someone: async ({ browser, hark, problems }, use) => {
    const contexts: BrowserContext[] = [];
    await use(async options => {
      const context = await (browser as Browser).newContext({ baseURL: hark.url, ...options });
      contexts.push(context);
      problems.watch(context);
      return context.newPage();
    });
    for (const context of contexts) await context.close();
  },
});

// A Playwright worker runs one test at a time, so these patterns belong to the running test.
const patterns: RegExp[] = [];
function allowed(): RegExp[] {
  return patterns;
}

/** Whether a line of the log is a warning of Leptos about wrong use, as development builds write: "At src/app/…:12:3, you …". */
function isMisuse(line: string): boolean {
  return /^At \S+:\d+:\d+, /.test(line);
}

/** A free port. Another program may take it before it is used. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** Opens a page and waits until it is hydrated, if it may run scripts. */
export async function visit(page: Page, url: string) {
  const response = await page.goto(url);
  if (await runsScripts(page)) await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
  return response;
}

async function runsScripts(page: Page): Promise<boolean> {
  // Scripts that Playwright evaluates run even if the page's own scripts don't. The parsing of <noscript> shows the difference.
  return page.evaluate(() => {
    const probe = document.createElement('div');
    probe.innerHTML = '<noscript><i></i></noscript>';
    return probe.querySelector('i') === null;
  });
}

const SCREENSHOTS = path.join(import.meta.dirname, 'artifacts/screenshots');
const AXE_TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

/** Writes a screenshot for people to look at, and expects that the page is accessible and no wider than the window. */
export async function expectGoodLooks(page: Page, name: string) {
  await page.screenshot({ path: path.join(SCREENSHOTS, `${name}.png`), fullPage: true });
  const { violations } = await new AxeBuilder({ page }).withTags(AXE_TAGS).analyze();
  const messages = violations.map(v => `${v.id}: ${v.help}: ${v.nodes.map(n => n.html).join(' | ')}`);
  expect.soft(messages, `axe on ${name}`).toEqual([]);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  expect.soft(overflow, `${name} is wider than the window`).toBeLessThanOrEqual(0);
}
