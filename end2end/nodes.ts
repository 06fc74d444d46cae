// Starts several nodes with a PostgreSQL and a Redis, behind nginx with the configuration from deploy/.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { chownSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort } from './fixtures.ts';

const ROOT = path.resolve(import.meta.dirname, '..');
const BIN = path.resolve(import.meta.dirname, process.env.HARK_BIN ?? '../target/released/hark');

/** A program that runs until it is stopped. */
class Service {
  private child?: ChildProcess;
  private exited = Promise.resolve();
  log = '';

  constructor(
    private program: string,
    private args: string[],
    private env: Record<string, string>,
    private answers: () => Promise<boolean>,
  ) {}

  async start() {
    const child = spawn(this.program, this.args, { cwd: ROOT, env: { ...process.env, ...this.env } });
    this.child = child;
    child.stdout.on('data', chunk => (this.log += chunk));
    child.stderr.on('data', chunk => (this.log += chunk));
    child.on('error', error => (this.log += error.message));
    this.exited = new Promise(resolve => child.on('close', () => resolve()));
    for (let waited = 0; !(await this.answers()); waited += 50) {
      if (child.exitCode !== null || waited > 30_000) throw new Error(`${this.program} does not answer:\n${this.log}`);
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  }

  /** Stops it with a signal. Returns whether it exited within 10 seconds. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<boolean> {
    if (!this.child || this.child.exitCode !== null || this.child.signalCode !== null) return true;
    this.child.kill(signal);
    let killed = false;
    const killer = setTimeout(() => (killed = this.child!.kill('SIGKILL')), 10_000);
    await this.exited;
    clearTimeout(killer);
    return !killed;
  }
}

export interface Nodes {
  /** The address of nginx. */
  url: string;
  webs: Service[];
  workers: Service[];
  log(): string;
  stop(): Promise<void>;
}

/** Starts two nodes that serve and two nodes that only work, with these settings. */
export async function startNodes(env: Record<string, string>): Promise<Nodes> {
  const folder = await mkdtemp(path.join(tmpdir(), 'hark-nodes-'));
  const [postgresPort, redisPort, nginxPort] = [await freePort(), await freePort(), await freePort()];
  const postgres = startablePostgres(folder, postgresPort);
  const redis = new Service(
    'redis-server',
    ['--port', `${redisPort}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder],
    {},
    async () => spawnSync('redis-cli', ['-p', `${redisPort}`, 'ping']).stdout.toString().startsWith('PONG'),
  );
  const shared = path.join(folder, 'recordings');
  mkdirSync(shared);
  const common = {
    HARK_ENGINE: 'pocketsphinx',
    HARK_MODEL_FETCH: 'false',
    ...env,
    DATABASE_URL: `postgres://postgres@127.0.0.1:${postgresPort}/postgres`,
    REDIS_URL: `redis://127.0.0.1:${redisPort}/`,
    HARK_RECORDINGS_URL: `file://${shared}`,
    HARK_MIN_FREE_BYTES: '1',
  };
  const node = async (name: string, args: string[]) => {
    const address = `127.0.0.1:${await freePort()}`;
    // A node that only works answers /readyz on a separate address for operators.
    const listens = args[0] === 'worker' ? { HARK_MONITOR_ADDR: address } : { LEPTOS_SITE_ADDR: address };
    const own = { HARK_DATA_DIR: path.join(folder, name), ...listens };
    const ready = () => fetch(`http://${address}/readyz`).then(r => r.ok, () => false);
    return { address, service: new Service(BIN, args, { ...common, ...own }, ready) };
  };
  const webs = [await node('web1', ['serve', '--workers', '0']), await node('web2', ['serve', '--workers', '0'])];
  const workers = [await node('worker1', ['worker']), await node('worker2', ['worker'])];
  const url = `http://127.0.0.1:${nginxPort}`;
  const nginx = startableNginx(folder, nginxPort, webs.map(web => web.address));
  const all = [postgres, redis, ...webs.map(n => n.service), ...workers.map(n => n.service), nginx];
  const log = () => all.map(service => service.log).join('\n');
  const stop = async () => {
    for (const service of [...all].reverse()) await service.stop(service === postgres ? 'SIGINT' : 'SIGTERM');
    await rm(folder, { recursive: true, force: true });
  };
  try {
    for (const service of all) await service.start();
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, webs: webs.map(n => n.service), workers: workers.map(n => n.service), log, stop };
}

function startablePostgres(folder: string, port: number): Service {
  const versions = readdirSync('/usr/lib/postgresql').sort();
  const bin = `/usr/lib/postgresql/${versions.at(-1)}/bin`;
  const data = path.join(folder, 'postgres');
  mkdirSync(data);
  let as: string[] = [];
  if (process.getuid!() === 0) {
    // PostgreSQL refuses to run as root.
    const id = (flag: string) => Number(spawnSync('id', [flag, 'postgres']).stdout);
    chownSync(data, id('-u'), id('-g'));
    spawnSync('chmod', ['755', folder]);
    as = ['setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups'];
  }
  const run = (program: string, args: string[]): [string, string[]] => {
    const [first, ...rest] = [...as, path.join(bin, program), ...args];
    return [first!, rest];
  };
  const cluster = path.join(data, 'cluster');
  const [init, initArgs] = run('initdb', ['-A', 'trust', '-U', 'postgres', '-N', '-E', 'UTF8', '--locale=C.UTF-8', '-D', cluster]);
  const made = spawnSync(init, initArgs);
  if (made.status !== 0) throw new Error(`initdb: ${made.stderr}`);
  const settings = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', 'fsync=off'].flatMap(s => ['-c', s]);
  const answers = async () => spawnSync(path.join(bin, 'pg_isready'), ['-h', '127.0.0.1', '-p', `${port}`]).status === 0;
  return new Service(...run('postgres', [...settings, '-p', `${port}`, '-D', cluster]), {}, answers);
}

/** nginx with the configuration from deploy/, with its addresses replaced. */
function startableNginx(folder: string, port: number, webs: string[]): Service {
  const own = path.join(folder, 'nginx');
  mkdirSync(own);
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(n => `${n}_temp_path ${own}/${n};`).join('\n');
  let conf = readFileSync(path.join(ROOT, 'deploy/nginx.conf'), 'utf8');
  const replace = (from: string, to: string) => {
    if (!conf.includes(from)) throw new Error(`deploy/nginx.conf has no '${from}'`);
    conf = conf.replace(from, to);
  };
  replace('web1:3000', webs[0]!);
  replace('web2:3000', webs[1]!);
  replace('listen 80 ', `listen 127.0.0.1:${port} `);
  replace('http {', `http {\naccess_log off;\n${temp}`);
  const file = path.join(own, 'nginx.conf');
  writeFileSync(file, `daemon off; master_process off; pid ${own}/pid; error_log ${own}/error.log;\n${conf}`);
  const answers = () => fetch(`http://127.0.0.1:${port}/`).then(r => r.ok, () => false);
  return new Service('nginx', ['-p', own, '-c', file], {}, answers);
}
