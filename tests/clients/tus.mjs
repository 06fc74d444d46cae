// Sends a file with the npm package `tus-js-client`, and prints how much of it the server has after each part. What it remembers
// between two runs is in a file. It may stop after so many parts, as if somebody had ended it.
import { createReadStream } from 'node:fs';
import path from 'node:path';
import { FileUrlStorage, Upload } from 'tus-js-client';

const [endpoint, cookie, file, state, stopAfter] = process.argv.slice(2);
const say = what => console.log(JSON.stringify(what));
let parts = 0;
const upload = new Upload(createReadStream(file), {
  endpoint,
  headers: { Cookie: cookie },
  chunkSize: 1024 * 1024,
  retryDelays: null,
  urlStorage: new FileUrlStorage(state),
  metadata: { filename: path.basename(file), title: 'By a client' },
  onChunkComplete(_, offset) {
    say({ offset });
    parts += 1;
    if (parts === Number(stopAfter)) upload.abort().then(() => process.exit(0));
  },
  onSuccess() {
    say({ url: upload.url });
    process.exit(0);
  },
  onError(error) {
    console.error(error);
    process.exit(1);
  },
});
const [previous] = await upload.findPreviousUploads();
if (previous) upload.resumeFromPreviousUpload(previous);
upload.start();
