// Runs nginx in front of a server, on a free port and in a temporary folder.
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort } from './fixtures.ts';

/** The lines of a proxy that holds streams back. */
export const BUFFERING =
  'proxy_http_version 1.0; proxy_buffering on; proxy_buffers 8 64k; proxy_buffer_size 64k; proxy_ignore_headers X-Accel-Buffering;';

/** A request that nginx has answered, as its log has it. */
export interface LoggedRequest {
  method: string;
  path: string;
  status: number;
  /** Bytes of the answer's body. */
  body: number;
  /** The token of the page that it came from, if it has one. */
  page?: string;
}

export interface Proxy {
  url: string;
  /** The requests that were answered so far. */
  requests(): Promise<LoggedRequest[]>;
  stop(): Promise<void>;
}

/** Starts nginx as a proxy of `upstream`, with these directives in its location. */
export async function startNginx(upstream: string, directives: string): Promise<Proxy> {
  const folder = await mkdtemp(path.join(tmpdir(), 'hark-nginx-'));
  const port = await freePort();
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(n => `${n}_temp_path ${folder}/${n};`).join('\n');
  await writeFile(
    path.join(folder, 'nginx.conf'),
    `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log;
events { worker_connections 512; }
http {
  log_format counts '$request_method $uri $status $body_bytes_sent $http_hark_page$arg_page';
  access_log ${folder}/access.log counts;
  ${temp}
  server {
    listen 127.0.0.1:${port};
    client_max_body_size 1g;
    location / {
      proxy_pass ${upstream};
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      ${directives}
    }
  }
}
`,
  );
  const child = spawn('nginx', ['-p', folder, '-c', path.join(folder, 'nginx.conf')], { stdio: 'ignore' });
  let failed: Error | undefined;
  child.on('error', error => (failed = error));
  const exited = new Promise<void>(resolve => child.on('close', () => resolve()));
  const url = `http://127.0.0.1:${port}`;
  for (let waited = 0; !(await fetch(`${url}/healthz`).then(r => r.ok, () => false)); waited += 50) {
    if (failed) throw failed;
    if (child.exitCode !== null || waited > 10_000) throw new Error('nginx does not answer');
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return {
    url,
    async requests() {
      const lines = (await readFile(path.join(folder, 'access.log'), 'utf8')).trim().split('\n');
      return lines.map(line => {
        const [method, path, status, body, page] = line.split(' ') as [string, string, string, string, string];
        // nginx writes '-' for what is missing.
        const token = page.replaceAll('-', '') || undefined;
        return { method, path, status: Number(status), body: Number(body), page: token };
      });
    },
    async stop() {
      child.kill('SIGTERM');
      await exited;
      await rm(folder, { recursive: true, force: true });
    },
  };
}
