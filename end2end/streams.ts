// A proxy between browsers and a server that delays, refuses, cuts and holds back status streams, and notes by its own clock when
// each of them was open. Everything else passes as it is.
import { createServer, request, type ServerResponse } from 'node:http';
import { type AddressInfo } from 'node:net';

/** What became of a stream, in milliseconds of the proxy's clock. */
export interface StreamRecord {
  asked: number;
  /** When its first and its last piece passed. */
  opened?: number;
  last?: number;
  ended?: number;
  by?: 'proxy' | 'browser' | 'server';
}

interface Open {
  record: StreamRecord;
  response: ServerResponse;
  /** Pieces that haven't passed, with the time when they may. */
  waiting: { due: number; piece?: Buffer }[];
}

/** The streams of all browsers that use a proxy, which are treated alike. */
export class Streams {
  /** By how many milliseconds each piece is late. */
  delay = 0;
  /** Whether each new stream is answered with an error. */
  refused = false;
  records: StreamRecord[] = [];
  private held = false;
  private open = new Set<Open>();

  /** Lets nothing of any stream pass, and leaves them open. */
  hold() {
    this.held = true;
  }

  /** Ends `hold`: what came meanwhile passes. */
  release() {
    this.held = false;
    for (const stream of this.open) this.pass(stream);
  }

  /** Cuts the streams that are open. */
  cut() {
    for (const stream of [...this.open]) {
      this.end(stream, 'proxy');
      stream.response.destroy();
    }
  }

  /** Waits until so many streams have been asked for. */
  async asked(count: number) {
    for (let waited = 0; this.records.length < count; waited += 20) {
      if (waited > 60_000) throw new Error(`only ${this.records.length} streams were asked for`);
      await new Promise(resolve => setTimeout(resolve, 20));
    }
  }

  /** @internal */
  accept(response: ServerResponse): Open | undefined {
    const record: StreamRecord = { asked: Date.now() };
    this.records.push(record);
    if (this.refused) {
      record.ended = Date.now();
      record.by = 'proxy';
      response.writeHead(503).end();
      return undefined;
    }
    const stream: Open = { record, response, waiting: [] };
    this.open.add(stream);
    response.on('close', () => this.end(stream, 'browser'));
    return stream;
  }

  /** @internal Takes a piece in; none at the stream's end. */
  take(stream: Open, piece?: Buffer) {
    // Never before the piece that came before it.
    const due = Math.max(Date.now() + this.delay, stream.waiting.at(-1)?.due ?? 0);
    stream.waiting.push({ due, piece });
    setTimeout(() => this.pass(stream), due - Date.now());
  }

  private pass(stream: Open) {
    while (this.open.has(stream) && !this.held && stream.waiting.length > 0) {
      const { due, piece } = stream.waiting[0]!;
      // A timer may fire a moment early.
      if (due > Date.now() + 1) return void setTimeout(() => this.pass(stream), due - Date.now());
      stream.waiting.shift();
      if (piece === undefined) {
        this.end(stream, 'server');
        stream.response.end();
      } else {
        stream.record.last = Date.now();
        stream.record.opened ??= stream.record.last;
        stream.response.write(piece);
      }
    }
  }

  private end(stream: Open, by: StreamRecord['by']) {
    if (!this.open.delete(stream)) return;
    stream.record.ended = Date.now();
    stream.record.by = by;
  }
}

export interface StreamProxy {
  url: string;
  stop(): Promise<void>;
}

/** Starts a proxy of `upstream`. `userAgent`: what it has all browsers be, where given. */
export async function startStreamProxy(upstream: string, streams: Streams, userAgent?: string): Promise<StreamProxy> {
  const server = createServer((asked, response) => {
    const isStream = asked.url!.split('?')[0]!.endsWith('/status/stream');
    const stream = isStream ? streams.accept(response) : undefined;
    if (isStream && !stream) return;
    const headers = userAgent === undefined ? asked.headers : { ...asked.headers, 'user-agent': userAgent };
    const forwarded = request(upstream + asked.url, { method: asked.method, headers }, answer => {
      response.writeHead(answer.statusCode!, answer.headers);
      answer.on('error', () => response.destroy());
      if (!stream) return void answer.pipe(response);
      response.flushHeaders();
      answer.on('data', (piece: Buffer) => streams.take(stream, piece));
      answer.on('end', () => streams.take(stream));
    });
    forwarded.on('error', () => response.destroy());
    response.on('close', () => forwarded.destroy());
    asked.pipe(forwarded);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    stop: () =>
      new Promise(resolve => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
