// The dashboard's figures against what others have counted: requests and bytes by nginx's log, delays by the pages' own clocks,
// the time of open streams by a proxy that cuts them, and the control group by a hash of the cookies.
import { type Page } from '@playwright/test';
import { createHash } from 'node:crypto';
import { expect, test, visit, type Hark } from './fixtures.ts';
import { startNginx, type LoggedRequest } from './nginx.ts';
import { Streams, startStreamProxy, type StreamProxy, type StreamRecord } from './streams.ts';
import { NETWORK_ERRORS, expectBadge, expectLines, expectWholeTranscript, slowEngine, startSession, tone } from './tones.ts';

const TOKEN = 'a'.repeat(40);
const administrator = { authorization: `Bearer ${TOKEN}` };

type Arm = 'stream' | 'polling';
const ARMS: Arm[] = ['stream', 'polling'];

/** The figures of the last hour. */
async function figures(hark: Hark) {
  const answer = await fetch(`${hark.url}/api/v1/admin/figures?range=hour`, { headers: administrator });
  expect(answer.status).toBe(200);
  return ((await answer.json()) as any).current;
}

/** The figures once the last reports of so many visits are in them: until they stay as they are for longer than they are kept. */
async function figuresOf(hark: Hark, visits: number) {
  let [last, current] = ['', await figures(hark)];
  const settled = async () => {
    current = await figures(hark);
    const [before, now] = [last, JSON.stringify(ARMS.map(arm => current[arm]))];
    last = now;
    return before === now ? sum(ARMS.map(arm => current[arm].visits)) : -1;
  };
  await expect.poll(settled, { timeout: 60_000, intervals: [6_000] }).toBe(visits);
  return current;
}

/** The arm of a browser, by its cookie. */
function armOf(cookie: string, controlPercent: number): Arm {
  const owner = /([0-9a-f]{32})\.\d+$/.exec(decodeURIComponent(cookie))![1];
  const hash = createHash('sha256').update(`hark: the arm of an owner ${owner}`).digest();
  return hash.readUInt32BE(0) % 100 < controlPercent ? 'polling' : 'stream';
}

interface Observed {
  /** By which way updates came, and how late in milliseconds. */
  delays: [Arm, number][];
  /** Events on streams. */
  events: number;
  /** When the page began to ask for updates, and when the last one came. */
  began?: number;
  ended?: number;
}

/** Has a page note what comes and when, beside what the app itself measures. Server and browser have the same clock here. */
async function observe(page: Page) {
  await page.addInitScript(() => {
    const observed: Observed = ((window as any).observed = { delays: [], events: 0 });
    const versions = new Map<string, number>();
    const note = (status: any, way: 'stream' | 'polling', since: number) => {
      const now = Date.now();
      const made = Date.parse(status.timestamp);
      const isNew = status.version > (versions.get(status.session_id) ?? 0);
      if (isNew) versions.set(status.session_id, status.version);
      if (isNew && made >= since) observed.delays.push([way, now - made]);
      if (['completed', 'failed', 'cancelled'].includes(status.status)) observed.ended ??= now;
    };
    const Native = window.EventSource;
    (window as any).EventSource = class extends Native {
      constructor(url: string) {
        super(url);
        if (!url.includes('/status/stream')) return;
        const since = Date.now();
        observed.began ??= since;
        for (const name of ['status', 'segment', 'heartbeat', 'bye']) this.addEventListener(name, () => observed.events++);
        this.addEventListener('status', event => note(JSON.parse((event as MessageEvent).data), 'stream', since));
      }
    };
    const native = window.fetch.bind(window);
    let since = Infinity;
    window.fetch = async (input: any, init?: any) => {
      const isPoll = new URL(input.url ?? input, location.href).pathname === '/api/v1/status';
      if (isPoll) observed.began ??= Date.now();
      const answer = await native(input, init);
      if (isPoll && answer.ok) {
        const { statuses } = JSON.parse(await answer.clone().text());
        for (const status of statuses) note(status, 'polling', since);
      }
      // What was made before the first answer would have come earlier with an earlier first poll.
      if (isPoll && since === Infinity) since = Date.now();
      return answer;
    };
  });
}

/** Half of the time that a page took to come: by so much its estimate of the server's clock is off at most, in milliseconds. */
const uncertainty = (page: Page) =>
  page.evaluate(() => {
    const [load] = performance.getEntriesByType('navigation') as PerformanceNavigationTiming[];
    return (load!.responseStart - load!.requestStart) / 2;
  });

/** Loads the page for uploads until it comes so fast that its estimate of the server's clock is good. Returns by how much it is off. */
async function loadQuickly(page: Page): Promise<number> {
  let off = Infinity;
  for (let loads = 0; off > 35 && loads < 30; loads++) {
    await visit(page, '/upload');
    off = await uncertainty(page);
  }
  expect(off).toBeLessThan(50);
  return off;
}

/** Sends a recording of this length through the page, which then shows its session without being loaded again. */
async function send(page: Page, seconds: number) {
  await page.evaluate(() => ((window as any).marked = true));
  await page.getByTestId('file-input').setInputFiles({ name: 'tone.wav', mimeType: 'audio/wav', buffer: tone(seconds) });
  await page.getByTestId('upload-submit').click();
  await page.waitForURL(/\/sessions\/[0-9a-f-]{36}$/);
}

/** Checks that a histogram of the figures has these delays, each of which may be off by `off` milliseconds. */
function expectDelays(found: any, delays: number[], off: number, unsure: number) {
  const { bounds_ms: bounds, counts } = found.histogram as { bounds_ms: number[]; counts: number[] };
  expect(Math.abs(found.count - delays.length), `${found.count} of ${delays.length} updates`).toBeLessThanOrEqual(unsure);
  const within = (ms: number) => delays.filter(delay => delay <= ms).length;
  let sum = 0;
  for (const [n, bound] of bounds.entries()) {
    sum += counts[n]!;
    expect(sum, `within ${bound} ms, of ${delays}`).toBeGreaterThanOrEqual(within(bound - off) - unsure);
    expect(sum, `within ${bound} ms, of ${delays}`).toBeLessThanOrEqual(within(bound + off) + unsure);
  }
  // A percentile lies in the bucket of the delay that it is, or of one that is off by so much.
  const sorted = [...delays].sort((a, b) => a - b);
  for (const [name, share] of [['p50_ms', 0.5], ['p95_ms', 0.95], ['p99_ms', 0.99]] as const) {
    const rank = (change: number) => sorted[Math.min(Math.max(Math.ceil(share * sorted.length) - 1 + change, 0), sorted.length - 1)]!;
    const below = bounds.filter(bound => bound < rank(-1 - unsure) - off).at(-1) ?? 0;
    const above = bounds.find(bound => bound >= rank(1 + unsure) + off) ?? Infinity;
    expect(found[name], `${name} of ${sorted}`).toBeGreaterThanOrEqual(below);
    expect(found[name], `${name} of ${sorted}`).toBeLessThanOrEqual(above);
  }
}

const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);

/** Whether a request was for a stream, a poll or lines; undefined for others. */
function kindOf(request: LoggedRequest): 'stream' | 'poll' | 'segments' | undefined {
  if (request.method !== 'GET') return undefined;
  if (/^\/api\/v1\/(sessions\/[^/]+\/)?status\/stream$/.test(request.path)) return 'stream';
  if (/^\/api\/v1\/(sessions\/[^/]+\/)?status$/.test(request.path)) return 'poll';
  return request.path.endsWith('/segments') ? 'segments' : undefined;
}

test.describe('with a control group', () => {
  const CONTROL = 50;
  const SECONDS = 40;
  test.use({
    harkEnv: {
      ...slowEngine(0.6),
      HARK_LINK_TIMING: 'first=4000',
      HARK_ADMIN_TOKEN: TOKEN,
      HARK_CONTROL_PERCENT: `${CONTROL}`,
      HARK_WORKERS: '4',
    },
  });

  test('requests, bytes and delays of both arms are those that others counted', async ({ hark, someone, allow }) => {
    allow(NETWORK_ERRORS);
    const streams = new Streams();
    const proxy = await startStreamProxy(hark.url, streams);
    // Without chunks, whose heads nginx would count as part of the body.
    const nginx = await startNginx(proxy.url, 'proxy_http_version 1.1; proxy_buffering off; chunked_transfer_encoding off;');
    try {
      const browsers: { page: Page; arm: Arm; token: string; off: number }[] = [];
      while (browsers.length < 4) {
        const page = await someone({ baseURL: nginx.url });
        await page.request.get('/api/v1/sessions');
        const cookie = (await page.context().cookies()).find(cookie => cookie.name.startsWith('hark_owner_'))!;
        const arm = armOf(cookie.value, CONTROL);
        if (browsers.filter(browser => browser.arm === arm).length === 2) continue;
        await observe(page);
        const off = await loadQuickly(page);
        browsers.push({ page, arm, off, token: (await page.locator('meta[name=hark-page]').getAttribute('content'))! });
      }
      for (const browser of browsers) {
        await send(browser.page, SECONDS);
        await expectBadge(browser.page, browser.arm === 'stream' ? 'live' : 'polling');
      }
      const first = browsers.find(browser => browser.arm === 'stream')!;
      // Late in the middle only: what is under way when a page leaves its stream would count for the server and not for nginx.
      for (const [lines, delay] of [[10, 300], [20, 800], [30, 0]] as const) {
        await expectLines(first.page, lines);
        streams.delay = delay;
      }
      const observed = new Map<string, Observed>();
      for (const { page, token } of browsers) {
        await expectWholeTranscript(page, SECONDS);
        observed.set(token, await page.evaluate(() => (window as any).observed));
      }
      for (const { page } of browsers) await page.goto('about:blank');
      await figuresOf(hark, browsers.length);
      const requests = await nginx.requests();
      // What a server counts of streams is added to the figures at each full minute, and when it stops.
      await hark.stop();
      await hark.restart();
      const current = await figuresOf(hark, browsers.length);

      for (const arm of ARMS) {
        const found = current[arm];
        const pages = browsers.filter(browser => browser.arm === arm);
        const notes = pages.map(page => observed.get(page.token)!);
        const logged = requests.filter(request => kindOf(request) && pages.some(page => page.token === request.page));
        const count = (kind: string) => logged.filter(request => kindOf(request) === kind).length;
        expect(found.visits, arm).toBe(pages.length);
        expect(found.fell_back, arm).toBe(0);
        expect(found.never_fell_back.value, arm).toBe(1);
        expect(found.requests, arm).toEqual({ stream: count('stream'), poll: count('poll'), segments: count('segments') });
        expect(found.connects, arm).toBe(count('stream'));
        expect(found.connects > 0, `${arm}: the cookies' hash says who has streams`).toBe(arm === 'stream');
        expect(found.failures, arm).toEqual([]);
        const bytes = sum(logged.map(request => request.body));
        expect(found.bytes, arm).toBe(bytes);
        expect(found.requests_per_visit, arm).toBe(logged.length / pages.length);
        expect(found.bytes_per_visit, arm).toBe(bytes / pages.length);

        // The time of watching, with a second and a half for each page to notice, and four in which it listens for what follows.
        const online = sum(notes.map(note => note.ended! - note.began!));
        const { live, polling, connecting, reconnecting, offline } = found.times;
        const measured = live + polling + connecting + reconnecting + offline;
        expect(measured - online, `${arm}: ${online}`).toBeGreaterThan(-1_500 * pages.length);
        expect(measured - online, `${arm}: ${online}`).toBeLessThan(5_500 * pages.length);
        expect(arm === 'stream' ? [polling, reconnecting, offline] : [live, reconnecting, offline], arm).toEqual([0, 0, 0]);
        expect(found.uptime, arm).toBe(arm === 'stream' ? 1 : 0);

        // Against polling every 3 seconds, by the formula that the page of savings shows.
        const by = found.by_polling;
        const expected = pages.length + measured / 3_000 + count('segments');
        expect(Math.abs(by.requests - expected), `${arm}: ${by.requests} and ${expected}`).toBeLessThan(0.5 * pages.length);
        expect(found.requests_saved, arm).toBeCloseTo(1 - logged.length / by.requests, 9);
        const polls = requests.filter(request => kindOf(request) === 'poll');
        expect(by.is_measured, arm).toBe(polls.length >= 100);
        expect(by.bytes_per_poll, arm).toBeCloseTo(by.is_measured ? sum(polls.map(r => r.body)) / polls.length : 150, 9);
        const withoutStreams = (by.requests - count('segments')) * by.bytes_per_poll + by.requests * 450;
        expect(by.bytes, arm).toBeCloseTo(withoutStreams, 3);
        expect(found.bytes_saved, arm).toBeCloseTo(1 - (bytes + logged.length * 450) / withoutStreams, 9);
        if (arm === 'polling') {
          // What the formula says of polling is what pages that poll do.
          expect(Math.abs(logged.length - by.requests), `${logged.length} and ${by.requests}`).toBeLessThanOrEqual(2 * pages.length);
        } else {
          expect(found.requests_saved).toBeGreaterThan(0);
        }

        // An update made while the first answer was under way may count for one and not for the other.
        const delays = notes.flatMap(note => note.delays.map(([, ms]) => ms));
        const off = Math.max(...pages.map(page => page.off)) + 20;
        expect(delays.length, arm).toBeGreaterThan(arm === 'stream' ? 20 : 8);
        expectDelays(found.delay, delays, off, pages.length);
        expect(found[arm === 'stream' ? 'delay_live' : 'delay_polling'].count, arm).toBe(found.delay.count);
      }
      expect(current.stream.delay.p95_ms, 'the proxy held updates back for 800 ms').toBeGreaterThan(500);

      // What the server counted of all.
      const { server, sessions } = current;
      const [opened, polls] = ['stream', 'poll'].map(kind => requests.filter(request => kindOf(request) === kind)) as [LoggedRequest[], LoggedRequest[]];
      expect(server.streams_opened).toBe(opened.length);
      expect(server.stream_bytes).toBe(sum(opened.map(request => request.body)));
      // A page listens for four seconds after the end, in which a heartbeat or two come that nobody has noted.
      const noted = sum([...observed.values()].map(note => note.events));
      expect(server.events).toBeGreaterThanOrEqual(noted);
      expect(server.events).toBeLessThanOrEqual(noted + 2 * opened.length);
      expect(server.polls).toBe(polls.length);
      expect(server.polls_unchanged).toBe(polls.filter(request => request.status === 304).length);
      expect(server.poll_bytes).toBe(sum(polls.map(request => request.body)));
      expect([sessions.completed, sessions.failed, sessions.cancelled]).toEqual([browsers.length, 0, 0]);
      expect(sessions.audio_secs).toBeCloseTo(browsers.length * SECONDS, 0);

      const admin = await someone({ extraHTTPHeaders: administrator });
      await admin.goto('/admin?range=hour');
      await expect(admin.locator('#streams')).toContainText(`${opened.length} streams were opened`);
      await expect(admin.locator('#streams')).toContainText('0 failed, and 0 of 2 visits fell back to polling');
      await expect(admin.locator('#sessions')).toContainText('4 sessions completed');
      await expect(admin.locator('#promises')).toContainText('Too few to tell: 2 visits with streams and 2 that poll; each needs 30.');
    } finally {
      await nginx.stop();
      await proxy.stop();
    }
  });
});

test.describe('behind a proxy that breaks streams', () => {
  // Long enough for a busy machine to be no reason to give a stream up.
  const timing = ',first=3000,silence=8000,retry=1500';
  test.use({ harkEnv: { ...slowEngine(0.8, timing), HARK_ADMIN_TOKEN: TOKEN, HARK_WORKERS: '4' } });


  test('the time without a stream is that of the proxy', async ({ hark, someone, allow }) => {
    allow(NETWORK_ERRORS);
    const streams = new Streams();
    const proxy = await startStreamProxy(hark.url, streams);
    try {
      const page = await someone({ baseURL: proxy.url });
      await startSession(page, 150);
      await expectBadge(page, 'live');
      await page.waitForTimeout(3_000);
      // Cut, and what comes next is held back: less than the 3 seconds after which the page would give it up.
      for (let n = 0; n < 4; n++) {
        streams.hold();
        streams.cut();
        await page.waitForTimeout(600);
        streams.release();
        await expectBadge(page, 'live');
        await page.waitForTimeout(2_200);
      }
      // Refused: the page polls meanwhile.
      streams.refused = true;
      streams.cut();
      await expectBadge(page, 'polling');
      await page.waitForTimeout(5_000);
      streams.refused = false;
      await expectBadge(page, 'live');
      await page.waitForTimeout(2_500);
      // Open, but silent: the page notices after 8 seconds.
      const asked = streams.records.length;
      streams.hold();
      await streams.asked(asked + 1);
      streams.release();
      await expectBadge(page, 'live');
      await page.waitForTimeout(2_000);
      await page.goto('about:blank');

      const { stream } = await figuresOf(hark, 1);
      const { up, down } = timesOf(streams.records);
      const { live, polling, reconnecting } = stream.times;
      const told = `${up} ms up and ${down} ms down, of ${JSON.stringify(stream.times)}`;
      // Each of the six breaks begins and ends a moment later for the page than for the proxy.
      expect(Math.abs(live - up), told).toBeLessThan(2_000);
      expect(Math.abs(polling + reconnecting - down), told).toBeLessThan(2_000);
      expect(Math.abs(stream.uptime - up / (up + down)), told).toBeLessThan(0.06);
      expect(stream.uptime, told).toBeLessThan(0.75);
      expect([streams.records.length, streams.records.length + 1], told).toContain(stream.connects);
      expect([stream.visits, stream.fell_back, stream.never_fell_back.value]).toEqual([1, 1, 0]);
    } finally {
      await proxy.stop();
    }
  });

  test('failures are those that the proxy caused, by kind and browser', async ({ hark, someone, allow }) => {
    allow(NETWORK_ERRORS);
    // A browser's own name can't be changed in what it sends while it leaves a page, so the proxies do it.
    const chromium = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36';
    const agents = {
      fine: chromium,
      cut: chromium,
      buffered: 'Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0',
      silent: 'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15',
    };
    const names = Object.keys(agents) as (keyof typeof agents)[];
    const streams = Object.fromEntries(names.map(name => [name, new Streams()])) as Record<keyof typeof agents, Streams>;
    const proxies: StreamProxy[] = [];
    try {
      streams.buffered.hold();
      const pages = {} as Record<keyof typeof agents, Page>;
      for (const name of names) {
        const proxy = await startStreamProxy(hark.url, streams[name], agents[name]);
        proxies.push(proxy);
        pages[name] = await someone({ baseURL: proxy.url });
        await startSession(pages[name], 150);
      }
      await expectBadge(pages.buffered, 'polling');
      for (const name of ['fine', 'cut', 'silent'] as const) await expectBadge(pages[name], 'live');
      // One that is mended at once, then one that lasts until the page polls, and a while longer.
      streams.cut.cut();
      await expectBadge(pages.cut, 'live');
      await pages.cut.waitForTimeout(3_000);
      streams.cut.refused = true;
      streams.cut.cut();
      await expectBadge(pages.cut, 'polling');
      await pages.cut.waitForTimeout(3_000);
      streams.cut.refused = false;
      await expectBadge(pages.cut, 'live');
      const before = streams.silent.records.length;
      streams.silent.hold();
      await streams.silent.asked(before + 1);
      streams.silent.release();
      await expectBadge(pages.silent, 'live');
      await pages.cut.waitForTimeout(2_500);
      const given = streams.buffered.records.filter(record => record.ended !== undefined).length;
      for (const name of names) await pages[name].goto('about:blank');

      const { stream } = await figuresOf(hark, names.length);
      const failures = (kind: string, browser: string) =>
        sum(stream.failures.filter((f: any) => f.kind === kind && f.browser === browser).map((f: any) => f.count));
      const broken = streams.cut.records.filter(record => record.by === 'proxy').length;
      const told = `${JSON.stringify(stream.failures)}, ${stream.mended} mended, ${broken} broken, ${given} given up`;
      // A page may leave a stream that it has opened before the proxy is asked for it.
      const asked = sum(names.map(name => streams[name].records.length));
      expect([asked, asked + 1], told).toContain(stream.connects);
      expect(failures('error', 'chromium') + stream.mended, told).toBe(broken);
      expect(stream.mended, told).toBeGreaterThan(0);
      expect(failures('error', 'chromium'), told).toBeGreaterThan(1);
      // The last one may be given up while the page is being left.
      expect([given, given + 1], told).toContain(failures('buffered', 'firefox'));
      expect(failures('silent', 'safari'), told).toBe(1);
      expect(sum(stream.failures.map((f: any) => f.count)), told).toBe(
        failures('error', 'chromium') + failures('buffered', 'firefox') + failures('silent', 'safari'),
      );
      // Those whose badge has said that they poll.
      expect([stream.fell_back, stream.visits]).toEqual([2, 4]);
      expect(stream.never_fell_back.value).toBe(0.5);
    } finally {
      for (const proxy of proxies) await proxy.stop();
    }
  });
});

/** How long a stream was open and how long none was, from the first one's first piece to the end of the last. */
function timesOf(records: StreamRecord[]): { up: number; down: number } {
  const opened = records.filter(record => record.opened !== undefined).sort((a, b) => a.opened! - b.opened!);
  let [up, down] = [0, 0];
  for (const [n, record] of opened.entries()) {
    const next = opened[n + 1]?.opened;
    // A stream that the browser gave up, and opened anew, had brought nothing since its last piece.
    const end = record.by === 'browser' && next !== undefined ? record.last! : record.ended!;
    up += end - record.opened!;
    if (next !== undefined) down += next - end;
  }
  return { up, down };
}
