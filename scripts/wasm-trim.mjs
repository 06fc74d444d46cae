// Takes functions that are never called out of a WebAssembly file, in place: node wasm-trim.mjs FILE. Each becomes a trap;
// wasm-opt then drops what only they used. Needs the names, which wasm-bindgen leaves in, and a build in which
// no two functions share one body.
//
// Every view behind AnyView has a pointer to `hydrate_async`, so no linker can know that none is called: only
// `hydrate_lazy` does, for routes whose code comes later, and Hark hydrates at once. They are a tenth of the file.
// Streams that a browser reads from Rust (wasm_streams) are there for server functions that send or bring some, of which
// Hark has none; what is made for JavaScript to call stays in the file, called or not.
import { writeFileSync } from "node:fs";
import { encoded, read } from "./wasm.mjs";

const NEVER_CALLED = /\bhydrate_async\b|13hydrate_async|wasm_streams|intounderlying/;
/** No locals, `unreachable`, `end`. */
const TRAP = Buffer.from([0x00, 0x00, 0x0b]);
const CODE = 10;

const [file] = process.argv.slice(2);
const { bytes, sections, functions } = read(file);
const out = [bytes.subarray(0, 8)];
for (const { id, start, end } of sections) {
    let content = bytes.subarray(start, end);
    if (id === CODE) {
        const bodies = functions.map(code => (NEVER_CALLED.test(code.name) ? TRAP : bytes.subarray(code.start, code.end)));
        content = Buffer.concat([encoded(bodies.length), ...bodies.flatMap(body => [encoded(body.length), body])]);
    }
    out.push(Buffer.from([id]), encoded(content.length), content);
}
writeFileSync(file, Buffer.concat(out));
