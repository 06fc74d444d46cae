// Firefox and WebKit as Debian has them, driven by WebDriver with selenium-webdriver: Playwright's own builds of both can't be
// downloaded everywhere, and aren't what people use. Each test has a browser of its own; `look` reads what the page shows.
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import webdriver, { type WebDriver } from 'selenium-webdriver';
import http from 'selenium-webdriver/http/index.js';
import { expect, freePort, test as base } from './fixtures.ts';

export { expect };

const MINI_BROWSER = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/webkit2gtk-4.1/MiniBrowser`;

/** How each browser is driven. The driver's process starts the browser. */
const ENGINES: Record<string, { driver: (port: number) => [string, string[]]; capabilities: object }> = {
  firefox: {
    driver: port => ['geckodriver', ['--host', '127.0.0.1', '--port', String(port), '--log', 'error']],
    capabilities: { browserName: 'firefox', 'moz:firefoxOptions': { binary: '/usr/bin/firefox-esr', args: ['-headless'] } },
  },
  webkit: {
    driver: port => ['WebKitWebDriver', ['--host=127.0.0.1', `--port=${port}`]],
    capabilities: {
      browserName: 'MiniBrowser',
      'webkitgtk:browserOptions': { binary: MINI_BROWSER, args: ['--automation'] },
    },
  },
};

interface Fixtures {
  driver: WebDriver;
}

interface WorkerFixtures {
  /** The X display of WebKit, which has no headless mode. Empty for Firefox. */
  display: string;
}

export const test = base.extend<Fixtures, WorkerFixtures>({
  display: [
    async ({}, use, info) => {
      if (info.project.name !== 'webkit') return use('');
      const child = spawn('Xvfb', ['-displayfd', '3', '-screen', '0', '1280x1024x24', '-nolisten', 'tcp'], {
        stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      });
      const number = await new Promise<string>((resolve, reject) => {
        child.on('error', reject);
        child.on('close', () => reject(new Error('Xvfb did not start')));
        child.stdio[3]!.once('data', line => resolve(String(line).trim()));
      });
      await use(`:${number}`);
      child.removeAllListeners('close');
      child.kill();
    },
    { scope: 'worker' },
  ],

  driver: async ({ display }, use, info) => {
    const engine = ENGINES[info.project.name]!;
    const home = await mkdtemp(path.join(tmpdir(), 'hark-engine-'));
    const port = await freePort();
    const [program, args] = engine.driver(port);
    // In a group of its own, so that the browser ends with it whatever happens.
    const child = spawn(program, args, {
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: {
        ...process.env,
        HOME: home,
        XDG_RUNTIME_DIR: home,
        TMPDIR: home,
        DISPLAY: display,
        NO_AT_BRIDGE: '1',
        // Without a graphics card.
        WEBKIT_DISABLE_DMABUF_RENDERER: '1',
        WEBKIT_DISABLE_COMPOSITING_MODE: '1',
      },
    });
    let log = '';
    child.stderr!.on('data', chunk => (log += chunk));
    const exited = new Promise<void>(resolve => child.on('close', () => resolve()));
    let driver: WebDriver | undefined;
    try {
      const url = `http://127.0.0.1:${port}`;
      await answers(child, `${url}/status`);
      const executor = new http.Executor(new http.HttpClient(url));
      driver = webdriver.WebDriver.createSession(executor, new webdriver.Capabilities(engine.capabilities));
      await driver.getSession();
      await use(driver);
    } finally {
      const quit = driver?.quit().catch(() => {});
      await Promise.race([quit, new Promise(resolve => setTimeout(resolve, 5_000))]);
      try {
        process.kill(-child.pid!, 'SIGKILL');
      } catch {
        // It has ended.
      }
      await exited;
      if (info.status !== info.expectedStatus) await info.attach('driver.log', { body: log, contentType: 'text/plain' });
      await rm(home, { recursive: true, force: true, maxRetries: 5 });
    }
  },
});

async function answers(child: ChildProcess, url: string) {
  let failed: Error | undefined;
  child.on('error', error => (failed = error));
  for (let waited = 0; ; waited += 50) {
    if (failed) throw failed;
    if (child.exitCode !== null || waited > 20_000) throw new Error(`${child.spawnfile} doesn't answer`);
    if (await fetch(url).then(r => r.ok, () => false)) return;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

/** What a page shows. */
export interface Look {
  path: string;
  hydrated: boolean;
  state?: string;
  badge?: string;
  percent?: string;
  /** When each line of the transcript begins. */
  lines: string[];
  text: string;
}

/** Reads what the page shows; none while another is loading. */
export async function look(driver: WebDriver): Promise<Look | undefined> {
  const read = () => {
    const one = (id: string) => document.querySelector<HTMLElement>(`[data-testid=${id}]`);
    return {
      path: location.pathname,
      hydrated: document.documentElement.hasAttribute('data-hydrated'),
      state: one('state')?.dataset.state,
      badge: one('badge')?.dataset.mode,
      percent: one('percent')?.textContent,
      lines: [...document.querySelectorAll('[data-testid=segment-time]')].map(e => e.textContent),
      text: document.body.innerText,
    };
  };
  return driver.executeScript<Look>(read).catch(() => undefined);
}

/** Waits until the page shows this. */
export function expectLook(driver: WebDriver, wanted: Partial<Look>, timeout?: number) {
  return expect.poll(() => look(driver), { timeout, intervals: [100, 200, 300] }).toMatchObject(wanted);
}

/** Opens a page and waits until it is hydrated. */
export async function open(driver: WebDriver, url: string) {
  await driver.get(url);
  await expectLook(driver, { hydrated: true });
}

/** Has the page keep what it shows after every change in `recorded`. */
export function record(driver: WebDriver): Promise<void> {
  return driver.executeScript(() => {
    const recorded: object[] = ((window as any).recorded = []);
    const sample = () => {
      const of = (id: string, name: string) => document.querySelector<HTMLElement>(`[data-testid=${id}]`)?.getAttribute(name);
      const now = of('progress', 'aria-valuenow');
      recorded.push({
        state: of('state', 'data-state'),
        badge: of('badge', 'data-mode'),
        progress: now === null || now === undefined ? null : Number(now),
        lines: document.querySelectorAll('[data-testid=segment]').length,
      });
    };
    sample();
    new MutationObserver(sample).observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
  });
}

export interface Sample {
  state?: string;
  badge?: string;
  progress: number | null;
  lines: number;
}

/** What was recorded since `record`. None if the page was loaded again. */
export function recorded(driver: WebDriver): Promise<Sample[] | null> {
  return driver.executeScript(() => (window as any).recorded);
}

/** The browser's cookies, for requests in its name. */
export async function cookies(driver: WebDriver): Promise<string> {
  return (await driver.manage().getCookies()).map(cookie => `${cookie.name}=${cookie.value}`).join('; ');
}
