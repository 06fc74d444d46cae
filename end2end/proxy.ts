// A small proxy in front of a server that misbehaves on command: it freezes, breaks off, or answers in the server's place.
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, type Socket } from 'node:net';

/**
 * `pass`: everything; `freeze`: connections stay open and say nothing; `cut`: connections are closed at once; `login`: every
 * request is redirected to another site, as by a proxy whose login has run out; `refuse`: 401; `page`: HTML for everything.
 */
export type Weather = 'pass' | 'freeze' | 'cut' | 'login' | 'refuse' | 'page';

export interface MisbehavingProxy {
  url: string;
  become(weather: Weather): void;
  stop(): Promise<void>;
}

export async function startProxy(upstream: string): Promise<MisbehavingProxy> {
  let weather: Weather = 'pass';
  const sockets = new Set<Socket>();
  const answers = new Set<IncomingMessage>();
  const instead: Partial<Record<Weather, (response: ServerResponse) => void>> = {
    login: response => response.writeHead(302, { location: 'http://login.invalid/' }).end(),
    refuse: response => response.writeHead(401, { 'content-type': 'text/plain' }).end('Sign in'),
    page: response => response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Welcome to the network</h1>'),
  };
  const server = createServer((asked, response) => {
    if (weather === 'freeze') return;
    if (instead[weather]) return instead[weather](response);
    const target = new URL(asked.url!, upstream);
    const passed = request(target, { method: asked.method, headers: asked.headers }, answer => {
      answers.add(answer);
      answer.on('close', () => answers.delete(answer));
      response.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy());
    response.on('close', () => passed.destroy());
    asked.pipe(passed);
  });
  server.on('connection', socket => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    if (weather === 'cut') socket.destroy();
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    become(next) {
      weather = next;
      if (next === 'freeze') {
        for (const answer of answers) {
          answer.unpipe();
          answer.pause();
        }
      } else if (next !== 'pass') {
        for (const socket of sockets) socket.destroy();
      }
    },
    async stop() {
      for (const socket of sockets) socket.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}
