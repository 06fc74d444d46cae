// Reads one response with the npm package `eventsource-parser` and prints each event as a line of JSON.
import { createParser } from 'eventsource-parser';

const [url, cookie] = process.argv.slice(2);
const response = await fetch(url, { headers: { Cookie: cookie, Accept: 'text/event-stream' } });
const parser = createParser({
  onEvent: e => console.log(JSON.stringify({ event: e.event, id: e.id ?? '', data: e.data })),
  onRetry: ms => console.log(JSON.stringify({ event: 'retry', id: '', data: String(ms) })),
  onError: error => {
    throw error;
  },
});
for await (const text of response.body.pipeThrough(new TextDecoderStream())) parser.feed(text);
