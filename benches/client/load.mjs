// Measures a first visit: the time to the first paint and until the page handles clicks, and the bytes that a browser loads.
// Over loopback, over 1.6 Mbit/s with a round trip of 150 ms, and with a processor four times as slow. Several builds take
// turns, so that other load on the machine affects all of them alike: node load.mjs --help.
import { spawn } from 'node:child_process';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const ROOT = path.resolve(import.meta.dirname, '../..');
const { chromium } = createRequire(path.join(ROOT, 'end2end/package.json'))('@playwright/test');

const { values: args } = parseArgs({
  options: {
    build: { type: 'string', multiple: true, default: [`this=${ROOT}/target/released/hark:${ROOT}/target/site`] },
    visits: { type: 'string', default: '9' },
    help: { type: 'boolean', default: false },
  },
});
if (args.help) {
  console.log('node load.mjs [--visits 9] [--build NAME=SERVER:SITE]...   hash.txt stands beside the server');
  process.exit(0);
}
const NETWORK = { slow: { offline: false, latency: 150, downloadThroughput: 200_000, uploadThroughput: 200_000 } };
const CONDITIONS = [
  ['loopback', {}],
  ['1.6 Mbit/s, 150 ms', { network: NETWORK.slow }],
  ['processor ×4 slower', { cpu: 4 }],
];

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const freePort = () => new Promise(resolve => {
  const probe = createServer().listen(0, '127.0.0.1', () => {
    const { port } = probe.address();
    probe.close(() => resolve(port));
  });
});
const median = values => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

const builds = [];
const browser = await chromium.launch({
  executablePath: process.env.HARK_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
});
try {
  for (const build of args.build) {
    const [, name, bin, site] = /^([^=]+)=([^:]+):(.+)$/.exec(build);
    const port = await freePort();
    const data = await mkdtemp(path.join(tmpdir(), 'hark-load-'));
    const server = spawn(bin, ['serve'], {
      cwd: ROOT,
      env: { ...process.env, LEPTOS_SITE_ADDR: `127.0.0.1:${port}`, LEPTOS_SITE_ROOT: site, HARK_DATA_DIR: data, HARK_ENGINE: 'pocketsphinx' },
      stdio: 'ignore',
    });
    builds.push({ name, site, data, server, url: `http://127.0.0.1:${port}`, results: CONDITIONS.map(() => []) });
  }
  for (const { url } of builds) while (!(await fetch(`${url}/healthz`).then(r => r.ok, () => false))) await sleep(50);
  for (const [at, [, condition]] of CONDITIONS.entries()) {
    for (let visit = -1; visit < Number(args.visits); visit++) {
      for (const build of builds) {
        const result = await load(build.url, condition);
        // The first visit of a series only warms the server up and isn't counted.
        if (visit >= 0) build.results[at].push(result);
      }
    }
  }
  console.log('| Brotli, bytes |', builds.map(b => `${b.name} |`).join(' '));
  console.log('| --- |', builds.map(() => '---: |').join(' '));
  const sizes = await Promise.all(builds.map(b => parts(b.site)));
  for (const kind of ['wasm', 'js', 'css', 'all']) console.log(`| ${kind} |`, sizes.map(s => `${s[kind].toLocaleString('en')} |`).join(' '));
  console.log(`\n| median of ${args.visits} visits |`, builds.map(b => `${b.name} |`).join(' '));
  console.log('| --- |', builds.map(() => '---: |').join(' '));
  for (const [at, [name]] of CONDITIONS.entries()) {
    const row = (what, of, unit) =>
      console.log(`| ${name}: ${what} |`, builds.map(b => `${Math.round(median(b.results[at].map(of)))}${unit} |`).join(' '));
    row('first paint', r => r.paint, ' ms');
    row('interactive', r => r.interactive, ' ms');
    row('tasks over 50 ms', r => r.tasks.length, '');
    row('the longest', r => Math.max(0, ...r.tasks), ' ms');
  }
} finally {
  await browser.close();
  for (const { server, data } of builds) {
    server.kill();
    await new Promise(resolve => server.once('close', resolve));
    await rm(data, { recursive: true, force: true });
  }
}

/** Measures a first visit, with nothing cached. */
async function load(url, { network, cpu }) {
  const context = await browser.newContext();
  await context.addInitScript(() => {
    window.tasks = [];
    new PerformanceObserver(list => window.tasks.push(...list.getEntries().map(e => e.duration))).observe({ type: 'longtask', buffered: true });
    new MutationObserver((_, observer) => {
      if (!document.documentElement?.hasAttribute('data-hydrated')) return;
      window.interactive = performance.now();
      observer.disconnect();
    }).observe(document, { subtree: true, childList: true, attributes: true });
  });
  const page = await context.newPage();
  const devtools = await context.newCDPSession(page);
  await devtools.send('Network.enable');
  if (network) await devtools.send('Network.emulateNetworkConditions', network);
  if (cpu) await devtools.send('Emulation.setCPUThrottlingRate', { rate: cpu });
  await page.goto(url);
  await page.waitForFunction(() => window.interactive !== undefined);
  await sleep(300);
  const result = await page.evaluate(() => ({
    paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN,
    interactive: window.interactive,
    tasks: window.tasks,
  }));
  await context.close();
  return result;
}

async function parts(site) {
  const files = await readdir(path.join(site, 'pkg'));
  const sizes = { all: 0 };
  for (const kind of ['wasm', 'js', 'css']) {
    const file = files.find(name => new RegExp(`^hark\\.[^.]*\\.${kind}\\.br$`).test(name));
    sizes[kind] = (await stat(path.join(site, 'pkg', file))).size;
    sizes.all += sizes[kind];
  }
  return sizes;
}
