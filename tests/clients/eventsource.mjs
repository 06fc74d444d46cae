// Follows a stream with the npm package `eventsource`, which reconnects as browsers do, and prints each event as a
// line of JSON. Ends when the server tells it to stop (204).
import { EventSource } from 'eventsource';

const [url, cookie] = process.argv.slice(2);
const source = new EventSource(url, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Cookie: cookie } }),
});
for (const name of ['status', 'segment', 'heartbeat', 'bye']) {
  source.addEventListener(name, e => console.log(JSON.stringify({ event: name, id: e.lastEventId, data: e.data })));
}
source.addEventListener('error', error => {
  if (source.readyState === EventSource.CLOSED) {
    console.log(JSON.stringify({ event: 'closed', id: '', data: String(error.code ?? '') }));
    process.exit(0);
  }
});
