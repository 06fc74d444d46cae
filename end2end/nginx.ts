// Runs nginx in front of a server, on a free port and in a temporary folder.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort } from './fixtures.ts';

export interface Proxy {
  url: string;
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
  access_log off;
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
    async stop() {
      child.kill('SIGTERM');
      await exited;
      await rm(folder, { recursive: true, force: true });
    },
  };
}
