// Two Chromiums watch one real session at the same time, which the built-in engine transcribes: one has EventSource, the other
// doesn't and polls every 3 seconds. Then a second session with 20 changes a second measures the load of the main thread.
import { spawn, execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const ROOT = path.resolve(import.meta.dirname, '../..');
const { chromium } = createRequire(path.join(ROOT, 'end2end/package.json'))('@playwright/test');
const TOKEN = 'a-token-of-the-bench';

const { values: args } = parseArgs({
  options: {
    seconds: { type: 'string', default: '300' },
    busy: { type: 'string', default: '20' },
    verbose: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (args.help) {
  console.log('run [--seconds 300] [--busy 20] [--verbose]   seconds to watch the real session, and the one with 20 changes a second');
  process.exit(0);
}
const seconds = Number(args.seconds);
const busy = Number(args.busy);

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const port = await new Promise(resolve => {
  const probe = createServer().listen(0, '127.0.0.1', () => {
    const { port } = probe.address();
    probe.close(() => resolve(port));
  });
});
const url = `http://127.0.0.1:${port}`;
const data = await mkdtemp(path.join(tmpdir(), 'hark-bench-'));
const server = spawn(path.resolve(process.env.HARK_BIN ?? path.join(ROOT, 'target/release/hark')), ['serve'], {
  cwd: ROOT,
  env: { ...process.env, LEPTOS_SITE_ADDR: `127.0.0.1:${port}`, HARK_DATA_DIR: data, HARK_WORKER_TOKEN: TOKEN, HARK_ENGINE: 'pocketsphinx' },
  stdio: 'ignore',
});
const browser = await chromium.launch({
  executablePath: process.env.HARK_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
});

try {
  while (!(await fetch(`${url}/healthz`).then(r => r.ok, () => false))) await sleep(50);
  await watchRealSession();
  await watchBusySession();
} finally {
  await browser.close();
  server.kill();
  await new Promise(resolve => server.once('close', resolve));
  await rm(data, { recursive: true, force: true });
}

/** Opens a page that counts its requests to the API and their bytes, and records when each version was on the screen. */
async function watcher(context, address, streaming, hydrates = true) {
  if (!streaming) await context.addInitScript(() => delete window.EventSource);
  await context.addInitScript(() => {
    window.shown = [];
    window.longTasks = 0;
    new PerformanceObserver(list => (window.longTasks += list.getEntries().length)).observe({ type: 'longtask' });
    document.addEventListener('DOMContentLoaded', () => {
      const note = () => {
        const card = document.querySelector('[data-version]');
        const version = Number(card?.dataset.version ?? 0);
        if (version > (window.shown.at(-1)?.[0] ?? 0)) {
          // Runs after the next frame has been drawn.
          window.shown.push([version, Infinity]);
          const entry = window.shown.at(-1);
          requestAnimationFrame(() => setTimeout(() => (entry[1] = Date.now())));
        }
      };
      note();
      new MutationObserver(note).observe(document.body, { subtree: true, attributes: true, attributeFilter: ['data-version'] });
    });
  });
  const page = await context.newPage();
  const devtools = await context.newCDPSession(page);
  const cost = { requests: 0, bytes: 0, by: new Map() };
  const paths = new Map();
  const ours = new Set();
  const early = new Map();
  const headers = all => Object.entries(all).reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);
  const add = (id, bytes) => {
    if (!ours.has(id)) return early.set(id, (early.get(id) ?? 0) + bytes);
    cost.bytes += bytes;
    const entry = cost.by.get(paths.get(id));
    entry.bytes += bytes;
  };
  devtools.on('Network.requestWillBeSent', ({ requestId, request }) => {
    // Requests for the recording don't depend on the transport, so they aren't counted.
    if (!/^\/api\/(?!.*\/audio$)/.test(new URL(request.url).pathname)) return;
    ours.add(requestId);
    cost.requests += 1;
    const { pathname } = new URL(request.url);
    const kind = pathname.replace(/[0-9a-f-]{36}/, '{id}');
    paths.set(requestId, kind);
    const entry = cost.by.get(kind) ?? { requests: 0, bytes: 0 };
    cost.by.set(kind, entry);
    entry.requests += 1;
    add(requestId, `${request.method} ${pathname} HTTP/1.1\r\n\r\n`.length + (request.postData?.length ?? 0));
    add(requestId, early.get(requestId) ?? 0);
  });
  devtools.on('Network.requestWillBeSentExtraInfo', e => add(e.requestId, headers(e.headers)));
  devtools.on('Network.responseReceivedExtraInfo', e => add(e.requestId, e.headersText?.length ?? headers(e.headers)));
  // The compressed size. It is 0 if Chromium reports these bytes only together with the next ones.
  devtools.on('Network.dataReceived', e => add(e.requestId, e.encodedDataLength));
  await devtools.send('Network.enable');
  await devtools.send('Performance.enable');
  await page.goto(address);
  if (hydrates) await page.locator('html[data-hydrated]').waitFor({ state: 'attached' });
  const metrics = async () => {
    const { metrics } = await devtools.send('Performance.getMetrics');
    return Object.fromEntries(metrics.map(m => [m.name, m.value]));
  };
  return { page, cost, metrics };
}

/** Records when each version was made, by the server's clock, which is this machine's. */
async function versions(address, cookie, until) {
  const made = [];
  const abort = new AbortController();
  const read = async () => {
    while (!abort.signal.aborted) {
      const response = await fetch(address, { headers: { cookie }, signal: abort.signal });
      let text = '';
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        text += chunk;
        const events = text.split('\n\n');
        text = events.pop();
        for (const event of events) {
          if (!/^event: status$/m.test(event)) continue;
          const status = JSON.parse(/^data: (.*)$/m.exec(event)[1]);
          if (status.version > (made.at(-1)?.[0] ?? 0)) made.push([status.version, Date.parse(status.timestamp)]);
        }
      }
    }
  };
  read().catch(() => {});
  await until;
  abort.abort();
  return made;
}

function quantile(sorted, q) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
}

async function owner() {
  const context = await browser.newContext();
  await context.request.get(`${url}/api/v1/sessions`);
  const state = await context.storageState();
  await context.close();
  return { state, cookie: state.cookies.map(c => `${c.name}=${c.value}`).join('; ') };
}

async function watchRealSession() {
  const { state, cookie } = await owner();
  // Long enough for an engine that transcribes at ten times real time.
  const recording = path.join(data, 'long.mp3');
  execFileSync('ffmpeg', ['-v', 'error', '-stream_loop', '400', '-i', path.join(ROOT, 'public/sample.mp3'), '-c', 'copy', '-t', String(seconds * 12), recording]);
  const form = new FormData();
  form.append('file', new Blob([await readFile(recording)]), 'long.mp3');
  const created = await fetch(`${url}/api/v1/sessions`, { method: 'POST', headers: { cookie }, body: form });
  const { id } = await created.json();
  const status = async () => (await fetch(`${url}/api/v1/sessions/${id}/status`, { headers: { cookie } })).json();
  while ((await status()).segments === 0) await sleep(100);

  const end = sleep(seconds * 1000);
  const made = versions(`${url}/api/v1/sessions/${id}/status/stream`, cookie, end);
  const plain = plainPoller(state, id, end);
  const results = await Promise.all(
    [true, false].map(async streaming => {
      const context = await browser.newContext({ storageState: state });
      const { page, cost } = await watcher(context, `${url}/sessions/${id}`, streaming);
      await end;
      await sleep(4_000);
      const shown = await page.evaluate(() => window.shown);
      const lines = await page.getByTestId('segment').count();
      const counted = { ...cost };
      await context.close();
      return { shown, lines, ...counted };
    }),
  );
  const versionsMade = await made;
  const asked = await plain;
  for (const result of results) {
    const from = result.shown[0][1];
    result.delays = versionsMade
      .filter(([, at]) => at > from)
      .map(([version, at]) => (result.shown.find(([shown]) => shown >= version)?.[1] ?? Infinity) - at)
      .filter(Number.isFinite)
      .sort((a, b) => a - b);
  }
  const [stream, poll] = results;
  if (args.verbose) console.log(stream.by, poll.by);
  const less = (a, b) => `${(100 * (1 - a / b)).toFixed(1)}%`;
  console.log(`\n${versionsMade.length} changes and ${stream.lines} lines in ${seconds} s (polling showed ${poll.lines} lines)\n`);
  console.log('| | stream | polling for changes | polling for everything | fewer than the one | than the other |');
  console.log('| --- | ---: | ---: | ---: | ---: | ---: |');
  for (const [name, key] of [['HTTP requests', 'requests'], ['bytes on the wire', 'bytes']]) {
    const [a, b, c] = [stream[key], poll[key], asked[key]];
    console.log(`| ${name} | ${a} | ${b} | ${c} | ${less(a, b)} | ${less(a, c)} |`);
  }
  for (const [name, q] of [['p50', 0.5], ['p99', 0.99]]) {
    const [a, b] = [quantile(stream.delays, q), quantile(poll.delays, q)];
    console.log(`| an update is on the screen after, ${name} | ${a} ms | ${b} ms | | ${less(a, b)} | |`);
  }
}

/** Polls like an app without live updates: fetches the whole session and its text every 3 seconds. */
async function plainPoller(state, id, end) {
  const context = await browser.newContext({ storageState: state });
  const { page, cost } = await watcher(context, `${url}/healthz`, true, false);
  await page.evaluate(id => {
    setInterval(() => {
      for (const what of ['', '/segments']) fetch(`/api/v1/sessions/${id}${what}`, { cache: 'no-store' }).then(r => r.text());
    }, 3_000);
  }, id);
  await end;
  const counted = { ...cost };
  await context.close();
  return counted;
}

async function watchBusySession() {
  const { state, cookie } = await owner();
  const headers = { cookie, authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' };
  const created = await fetch(`${url}/api/v1/sessions`, { method: 'POST', headers, body: JSON.stringify({ title: 'Busy', duration_total: 600 }) });
  const { id } = await created.json();
  const changes = busy * 20;
  const change = n => ({ stage: 'transcribing', progress: (90 * n) / changes, message: `Transcribing, step ${n}`, duration_processed: (540 * n) / changes });
  const put = body => fetch(`${url}/api/v1/sessions/${id}/status`, { method: 'PUT', headers, body: JSON.stringify(body) });
  await put(change(1));
  const context = await browser.newContext({ storageState: state });
  const { page, metrics } = await watcher(context, `${url}/sessions/${id}`, true);
  await page.locator('[data-testid=badge][data-mode=live]').waitFor({ state: 'attached' });
  await sleep(2_000);
  const before = await metrics();
  await page.evaluate(() => (window.longTasks = 0));
  const start = Date.now();
  for (let n = 2; n <= changes; n++) {
    await put(change(n));
    await sleep(start + n * 50 - Date.now());
  }
  await sleep(500);
  const after = await metrics();
  const longTasks = await page.evaluate(() => window.longTasks);
  const spent = name => (1000 * (after[name] - before[name])) / changes;
  console.log(`\n${changes} changes, 20 a second, on the session's page:\n`);
  console.log('| main thread for each change | |');
  console.log('| --- | ---: |');
  console.log(`| all tasks | ${spent('TaskDuration').toFixed(2)} ms |`);
  console.log(`| script, WebAssembly included | ${spent('ScriptDuration').toFixed(2)} ms |`);
  console.log(`| style and layout | ${(spent('RecalcStyleDuration') + spent('LayoutDuration')).toFixed(2)} ms |`);
  console.log(`| tasks over 50 ms | ${longTasks} |`);
  await context.close();
}
