// A proxy that puts a script at the beginning of every page, before the page's own, and counts requests. By it a browser lacks
// something in the same way whichever browser it is; WebDriver can't run a script so early.
import http from 'node:http';
import { type AddressInfo } from 'node:net';

export interface Injector {
  url: string;
  /** How many requests there were whose path and query match. */
  requests(path: RegExp): number;
  stop(): Promise<void>;
}

/** Starts one in front of a server. */
export async function startInjector(upstream: string, script = ''): Promise<Injector> {
  const seen: string[] = [];
  const { hostname, port } = new URL(upstream);
  const server = http.createServer((request, response) => {
    seen.push(request.url!);
    const isPage = (request.headers.accept ?? '').includes('text/html');
    const headers = { ...request.headers, ...(isPage ? { 'accept-encoding': 'identity' } : {}) };
    const forwarded = http.request({ hostname, port, method: request.method, path: request.url, headers }, answer => {
      if (!(answer.headers['content-type'] ?? '').startsWith('text/html')) {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
        return;
      }
      const chunks: Buffer[] = [];
      answer.on('data', chunk => chunks.push(chunk));
      answer.on('end', () => {
        const page = Buffer.concat(chunks).toString();
        // The policy of the page allows only scripts with its nonce.
        const nonce = /<script[^>]* nonce="([^"]+)"/.exec(page)?.[1] ?? '';
        const body = page.replace('<head>', `<head><script nonce="${nonce}">${script}</script>`);
        delete answer.headers['content-length'];
        response.writeHead(answer.statusCode!, answer.headers);
        response.end(body);
      });
    });
    forwarded.on('error', () => response.destroy());
    response.on('close', () => forwarded.destroy());
    request.pipe(forwarded);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: path => seen.filter(url => path.test(url)).length,
    async stop() {
      const closed = new Promise(resolve => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}
