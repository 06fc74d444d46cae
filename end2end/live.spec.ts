// What a page says of its own updates is so: behind proxies that hold streams back, on dead connections, without a server, after
// a login has run out; and its live values survive translators, dictionaries and extensions.
import { type BrowserContext, type Page } from '@playwright/test';
import path from 'node:path';
import { expect, test, visit, type Hark } from './fixtures.ts';
import { BUFFERING, startNginx } from './nginx.ts';
import { startProxy } from './proxy.ts';
import { NETWORK_ERRORS, expectBadge, expectLines, expectWholeTranscript, slowEngine, startSession, tone } from './tones.ts';

const TOKEN = 'a-token-of-the-tests';
const AUTHORIZED = { Authorization: `Bearer ${TOKEN}` };
const SCREENSHOTS = path.join(import.meta.dirname, 'artifacts/screenshots');

test.use({ harkEnv: { HARK_WORKER_TOKEN: TOKEN } });

/** Makes a session of the page's owner that an outside worker reports on, and opens its page. Returns its id. */
async function watchOutside(page: Page, origin = '', title = 'Board meeting') {
  await page.goto(`${origin}/`);
  const response = await page.request.post(`${origin}/api/v1/sessions`, {
    headers: AUTHORIZED,
    data: { title, duration_total: 600 },
  });
  expect(response.status()).toBe(201);
  const { id } = (await response.json()) as { id: string };
  await report(page, id, { stage: 'transcribing', progress: 10, message: 'The first words' });
  return id;
}

async function report(page: Page, id: string, status: object) {
  const response = await page.request.put(`${origin(page)}/api/v1/sessions/${id}/status`, { headers: AUTHORIZED, data: status });
  expect(response.status(), await response.text()).toBeLessThan(300);
}

async function addLine(page: Page, id: string, index: number, text: string) {
  const response = await page.request.post(`${origin(page)}/api/v1/sessions/${id}/segments`, {
    headers: AUTHORIZED,
    data: { index, start: index, end: index + 1, text },
  });
  expect(response.status(), await response.text()).toBeLessThan(300);
}

/** The server that a page's worker reports to: the one behind the page, if there is a proxy before it. */
const servers = new WeakMap<BrowserContext, string>();
const origin = (page: Page) => servers.get(page.context()) ?? '';

/** Opens such a session behind a proxy, once updates arrive. The test stops the proxy. */
async function watchBehindProxy(page: Page, hark: Hark) {
  const proxy = await startProxy(hark.url);
  servers.set(page.context(), hark.url);
  try {
    const id = await watchOutside(page, proxy.url);
    await visit(page, `${proxy.url}/sessions/${id}`);
    await expectBadge(page, 'live');
    return { proxy, id };
  } catch (error) {
    await proxy.stop();
    throw error;
  }
}

const connection = (page: Page) => page.getByTestId('connection');

async function metric(hark: Hark, name: string): Promise<number> {
  const text = await (await fetch(`${hark.url}/metrics`)).text();
  const lines = text.split('\n').filter(line => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

test.describe('behind a proxy that buffers', () => {
  // No attempt is given up before the page has shown that it polls.
  test.use({ harkEnv: { ...slowEngine(1), HARK_LINK_TIMING: 'first=2000,poll=500,base=100' } });

  test('a page polls from the first silence on, and the next page at once', async ({ page, hark, allow }) => {
    allow(NETWORK_ERRORS);
    let streams = 0;
    page.on('request', request => {
      if (request.url().includes('/status/stream')) streams++;
    });
    const proxy = await startNginx(hark.url, BUFFERING);
    try {
      await startSession(page, 45, proxy.url);
      await expectBadge(page, 'polling');
      expect(streams, 'attempts before it polls').toBeLessThanOrEqual(2);
      await expect(connection(page)).toContainText("Live updates don't get through here: they come every 3 s");
      // The attempts that fail meanwhile aren't seen.
      await expect.poll(() => streams).toBeGreaterThanOrEqual(3);
      await expectBadge(page, 'polling');
      for (let load = 1; load <= 2; load++) {
        streams = 0;
        await page.reload();
        await page.evaluate(() => ((window as any).marked = true));
        await expectBadge(page, 'polling');
        expect(streams, 'a single probe runs beside it').toBeLessThanOrEqual(1);
        // A line each second, for longer than a visit must poll to count.
        await expectLines(page, (await page.getByTestId('segment').count()) + 4);
      }
      await expectWholeTranscript(page, 45);
      // Each load was a visit that fell back, once.
      await page.goto(`${proxy.url}/healthz`);
      await expect.poll(() => metric(hark, 'hark_client_visits_total')).toBe(3);
      expect(await metric(hark, 'hark_client_fallbacks_total')).toBe(3);
    } finally {
      await proxy.stop();
    }
  });
});

test.describe('a dead connection', () => {
  test('is told within seconds while something runs, and mended', async ({ page, hark, allow }) => {
    allow(NETWORK_ERRORS);
    const { proxy, id } = await watchBehindProxy(page, hark);
    try {
      // News is what is told of, not heartbeats.
      await expect(page.getByTestId('updated')).toHaveText(/updated 2\d s ago/, { timeout: 40_000 });
      await expectBadge(page, 'live');
      proxy.become('freeze');
      await expect(connection(page)).toHaveText(/No word from the server for \d+ s/, { timeout: 16_000 });
      await page.screenshot({ path: path.join(SCREENSHOTS, 'live-silence.png') });
      proxy.become('pass');
      await expectBadge(page, 'live', 60_000);
      await report(page, id, { stage: 'transcribing', progress: 30 });
      await expect(page.getByTestId('percent')).toHaveText('30%');
      await expect(page.getByTestId('updated')).toHaveText(/updated (just now|\d s ago)/);
    } finally {
      await proxy.stop();
    }
  });

  test('is looked for at once when the browser reports no network', async ({ page, hark, allow }) => {
    allow(NETWORK_ERRORS);
    const { proxy } = await watchBehindProxy(page, hark);
    try {
      const offline = () => page.evaluate(() => void dispatchEvent(new Event('offline')));
      // The browser is wrong: the page finds out, and says nothing.
      let poll = page.waitForResponse(response => response.url().endsWith('/api/v1/status'));
      await offline();
      await poll;
      await expectBadge(page, 'live');
      // It is right.
      await page.route('**/api/v1/status', route => route.abort('internetdisconnected'));
      proxy.become('freeze');
      await offline();
      await expect(connection(page)).toContainText('This device is offline. The work goes on; this page will catch up.', { timeout: 5_000 });
      await page.unroute('**/api/v1/status');
      proxy.become('pass');
      await page.evaluate(() => void dispatchEvent(new Event('online')));
      await expectBadge(page, 'live', 60_000);
    } finally {
      await proxy.stop();
    }
  });
});

test.describe('without a server', () => {
  test.use({ harkEnv: { HARK_WORKER_TOKEN: TOKEN, HARK_LINK_TIMING: 'poll=1000' } });

  test('the page says so, blames no engine, and its clock runs on', async ({ page, hark, allow }) => {
    allow(NETWORK_ERRORS);
    await page.clock.install();
    const { proxy, id } = await watchBehindProxy(page, hark);
    try {
      const spent = async () => (await page.getByTestId('stage-transcribing').getByTestId('stage-time').textContent()) ?? '';
      proxy.become('cut');
      await expect(connection(page)).toContainText("The server can't be reached. The work goes on; this page will catch up.");
      await expectBadge(page, 'unreachable');
      await expect(page.getByTestId('badge')).toHaveText('No connection');
      const before = await spent();
      await page.clock.fastForward(150_000);
      await expect(connection(page)).toContainText("The server can't be reached.");
      await expect(page.getByTestId('updated')).toContainText(/updated 2 min/);
      expect(await spent()).not.toBe(before);
      expect(await spent()).toContain('min');
      await expect(page.getByTestId('stalled')).toHaveCount(0);
      proxy.become('pass');
      await page.clock.fastForward(5_000);
      await expectBadge(page, 'live', 60_000);
      await expect(page.getByTestId('stalled')).toHaveCount(0);
      await report(page, id, { status: 'completed' });
      await expect(page.getByTestId('state')).toHaveAttribute('data-state', 'completed');
    } finally {
      await proxy.stop();
    }
  });

  for (const weather of ['login', 'refuse', 'page'] as const) {
    test(`a login that has run out is named, with the way there (${weather})`, async ({ page, hark, allow }) => {
      allow(/Failed to load resource|EventSource's response|ERR_|net::|MIME type|Content Security Policy/);
      const { proxy } = await watchBehindProxy(page, hark);
      try {
        proxy.become(weather);
        await expect(connection(page)).toContainText('You have to sign in again.');
        await expectBadge(page, 'sign-in');
        const link = page.getByTestId('sign-in');
        // The proxy in front leads whoever loads the page to its login, and back here.
        await expect(link).toBeVisible();
        expect(await link.evaluate((link: HTMLAnchorElement) => link.href)).toBe(page.url());
        await page.screenshot({ path: path.join(SCREENSHOTS, 'live-sign-in.png') });
        // Signed in, maybe in another tab.
        proxy.become('pass');
        await expectBadge(page, 'live', 60_000);
        await expect(link).toHaveCount(0);
      } finally {
        await proxy.stop();
      }
    });
  }
});

/** What translators do, such as Chrome's: each text node is replaced by elements with the translation, also later ones. */
function translate() {
  const done = new WeakSet<Node>();
  const texts = (root: Node) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const found: Text[] = [];
    while (walker.nextNode()) found.push(walker.currentNode as Text);
    return found;
  };
  const all = (root: Node) => {
    for (const text of texts(root)) {
      const parent = text.parentElement;
      if (!parent || done.has(text) || !text.data.trim() || parent.closest('script,style,noscript,[translate=no]')) continue;
      const [outer, inner] = [document.createElement('font'), document.createElement('font')];
      outer.style.verticalAlign = inner.style.verticalAlign = 'inherit';
      const translated = document.createTextNode(`«${text.data.trim()}»`);
      done.add(translated);
      inner.append(translated);
      outer.append(inner);
      text.replaceWith(outer);
    }
  };
  document.documentElement.classList.add('translated-ltr');
  all(document.body);
  new MutationObserver(() => all(document.body)).observe(document.body, { childList: true, subtree: true, characterData: true });
}

/** What dictionaries, password managers and cleaners do: text nodes are split, elements put in, comments removed. */
function tamper() {
  const collect = (what: number) => {
    const walker = document.createTreeWalker(document.body, what);
    const found: Node[] = [];
    while (walker.nextNode()) found.push(walker.currentNode);
    return found.filter(node => !node.parentElement?.closest('script,style,noscript'));
  };
  for (const text of collect(NodeFilter.SHOW_TEXT) as Text[]) if (text.data.length > 3) text.splitText(2);
  for (const comment of collect(NodeFilter.SHOW_COMMENT) as Comment[]) comment.remove();
  for (const field of document.querySelectorAll('input, button, h1')) {
    const icon = document.createElement('password-manager-icon');
    icon.attachShadow({ mode: 'open' });
    field.after(icon);
  }
  document.body.prepend(document.createElement('password-manager-frame'));
}

for (const [name, meddle, shown] of [
  ['a translator', translate, (text: string) => `«${text}»`],
  ['extensions', tamper, (text: string) => text],
] as const) {
  for (const when of ['after', 'before'] as const) {
    test(`live values survive ${name} that comes ${when} the app`, async ({ page }) => {
      const id = await watchOutside(page);
      if (when === 'after') {
        await visit(page, `/sessions/${id}`);
        await expectBadge(page, 'live');
        await page.evaluate(meddle);
      } else {
        let release = () => {};
        const held = new Promise<void>(resolve => (release = resolve));
        await page.route('**/pkg/*.wasm', async route => {
          await held;
          await route.continue();
        });
        await page.goto(`/sessions/${id}`, { waitUntil: 'commit' });
        await page.waitForFunction(() => document.readyState !== 'loading');
        await expect(page.getByTestId('message')).toHaveText('The first words');
        await page.evaluate(meddle);
        release();
        await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
        await expectBadge(page, 'live');
      }
      await page.evaluate(() => ((window as any).marked = true));
      await expect(page.getByTestId('stage-transcribing')).toHaveAttribute('data-row', 'now');
      for (const progress of [20, 40]) {
        await report(page, id, { stage: 'transcribing', progress, message: `The words of ${progress}`, processing_speed: progress / 10 });
        await expect(page.getByTestId('percent')).toHaveText(`${progress}%`);
        await expect(page.getByTestId('message')).toHaveText(shown(`The words of ${progress}`));
        await expect(page.getByTestId('speed')).toContainText(`${progress / 10}.0x`);
        await addLine(page, id, progress / 20 - 1, `Line ${progress}`);
        await expect(page.getByTestId('segment').nth(progress / 20 - 1)).toContainText(`Line ${progress}`);
      }
      await expect(page.getByTestId('segment')).toHaveCount(2);
      await page.request.patch(`/api/v1/sessions/${id}`, { data: { title: 'Another <b>title</b> & more' } });
      await expect(page.getByTestId('session-title')).toHaveText(shown('Another <b>title</b> & more'));
      // What comes and goes with the state: the alert, the buttons, what can be downloaded.
      await expect(page.getByTestId('cancel')).toBeVisible();
      await report(page, id, { status: 'failed', error: { code: 'broken', message: 'The microphone fell' } });
      await expect(page.getByTestId('state')).toHaveText(shown('Failed'));
      await expect(page.getByTestId('error-message')).toContainText('The microphone fell');
      await expect(page.getByTestId('cancel')).toHaveCount(0);
      await expect(connection(page)).toHaveCount(0);
      expect(await page.evaluate(() => (window as any).marked), 'the page was never loaded again').toBe(true);
      await expect(page.getByTestId('not-live')).toHaveCount(0);
    });
  }
}

test('a page whose comments were lost on the way is live too', async ({ page }) => {
  const id = await watchOutside(page);
  await page.route(`**/sessions/${id}`, async route => {
    const response = await route.fetch();
    const body = (await response.text()).replace(/<!(?:--.*?--)?>/gs, '');
    await route.fulfill({ response, body });
  });
  await visit(page, `/sessions/${id}`);
  await expectBadge(page, 'live');
  await report(page, id, { stage: 'transcribing', progress: 55 });
  await expect(page.getByTestId('percent')).toHaveText('55%');
});

test('an app that crashes again and again is not started any more, and the page says why it is not live', async ({ page, allow }) => {
  allow(/unreachable/);
  const id = await watchOutside(page);
  const crash = () => page.evaluate(() => {
    const bytes = [0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 5, 1, 3, 0, 0, 11];
    const broken = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(bytes)));
    setTimeout(broken.exports.f as () => void);
  });
  await visit(page, `/sessions/${id}`);
  await expectBadge(page, 'live');
  const reloaded = page.waitForEvent('load');
  await crash();
  await reloaded;
  await expectBadge(page, 'live');
  await crash();
  await expect(page.getByTestId('not-live')).toBeVisible();
  // It works as without JavaScript from now on.
  await page.goto(`/sessions/${id}?reload=off`);
  await expect(page.getByTestId('not-live')).toBeVisible();
  await expect(page.getByText('Reloading is paused.')).toBeVisible();
  await expect(page.locator('html[data-hydrated]')).toHaveCount(0);
});

test('renaming and deleting reach every device', async ({ page, context, someone }) => {
  const id = await watchOutside(page);
  await report(page, id, { status: 'completed' });
  // It needs something that runs to be connected.
  const running = await watchOutside(page, '', 'Another meeting');
  const cookies = await context.cookies();
  const [phone, old] = [await someone(), await someone()];
  for (const device of [phone, old]) await device.context().addCookies(cookies);
  await old.addInitScript(() => delete (window as any).EventSource);
  const tab = await context.newPage();
  await visit(page, `/sessions/${id}`);
  for (const list of [phone, old, tab]) {
    await visit(list, '/');
    await expect(list.getByTestId('badge')).toHaveAttribute('data-mode', list === old ? 'polling' : 'live');
  }
  const second = await context.newPage();
  await visit(second, `/sessions/${running}`);
  const third = await context.newPage();
  await visit(third, `/sessions/${id}`);
  await page.getByTestId('rename').click();
  await page.getByTestId('rename-input').fill('The new title');
  await page.getByTestId('rename-save').click();
  await expect(page.getByTestId('session-title')).toHaveText('The new title');
  for (const list of [phone, old, tab]) {
    await expect(list.locator(`[data-session="${id}"]`).getByTestId('session-title')).toHaveText('The new title');
  }
  // Who renames it there, too, begins with that title.
  await expect(third.getByTestId('session-title')).toHaveText('The new title');
  await third.getByTestId('rename').click();
  await expect(third.getByTestId('rename-input')).toHaveValue('The new title');
  const row = phone.locator(`[data-session="${running}"]`);
  await row.getByTestId('menu').click();
  // It is sent once it can't be undone any more.
  await row.getByTestId('row-delete').click();
  for (const list of [phone, old, tab]) await expect(list.locator(`[data-session="${running}"]`)).toHaveCount(0);
  await expect(second.getByTestId('not-found')).toContainText('It was deleted.');
});

test.describe('a failed action', () => {
  // Without workers the queue stays full.
  test.use({ harkEnv: { HARK_WORKERS: '0', HARK_MAX_QUEUE_PER_OWNER: '1' } });

  test('is told until it is dismissed, or its session is fine again', async ({ page, allow }) => {
    allow(/status of 4\d\d/);
    await visit(page, '/');
    const upload = () => page.request.post('/api/v1/sessions', { multipart: { file: { name: 'tone.wav', mimeType: 'audio/wav', buffer: tone(1) } } });
    const { id } = (await (await upload()).json()) as { id: string };
    await page.request.post(`/api/v1/sessions/${id}/cancel`);
    const other = (await (await upload()).json()) as { id: string };
    await visit(page, '/');
    const retry = page.locator(`[data-session="${id}"]`).getByTestId('retry');
    const alert = page.getByTestId('action-error');
    await retry.click();
    await expect(alert).toContainText('queue is full');
    await alert.getByTestId('dismiss').click();
    await expect(alert).toHaveCount(0);
    await retry.click();
    await expect(alert).toBeVisible();
    // Retried elsewhere, once there is room.
    await page.request.post(`/api/v1/sessions/${other.id}/cancel`);
    await page.request.post(`/api/v1/sessions/${id}/retry`);
    await expect(page.locator(`[data-session="${id}"]`).getByTestId('state')).toHaveAttribute('data-state', 'queued');
    await expect(alert).toHaveCount(0);
  });
});

test('that updates are live is said once, and nothing once there are none', async ({ page }) => {
  const id = await watchOutside(page);
  await visit(page, `/sessions/${id}`);
  await expectBadge(page, 'live');
  await expect(page.getByText(/\blive\b/i).filter({ visible: true })).toHaveCount(1);
  await expect(connection(page)).toHaveText(/^Live · updated (just now|\d+ s ago)$/);
  await expect(page.getByTestId('badge')).toBeHidden();
  await report(page, id, { status: 'completed' });
  await expect(page.getByTestId('state')).toHaveAttribute('data-state', 'completed');
  await expect(connection(page)).toHaveCount(0);
  await expect(page.getByTestId('badge')).toBeHidden();
});
