// Takes functions that are never called out of a WebAssembly file, in place: node wasm-trim.mjs FILE. Each becomes a trap;
// wasm-opt then drops what only they used. Needs the names, which wasm-bindgen leaves in, and a build in which
// no two functions share one body.
import { writeFileSync } from "node:fs";
import { encoded, read } from "./wasm.mjs";

const NEVER_CALLED = new RegExp([
    // Every view behind AnyView has a pointer to it, so no linker can know: only `hydrate_lazy` calls it, for routes whose
    // code comes later, and Hark hydrates at once. So does the effect made by it alone.
    /\bhydrate_async\b|13hydrate_async|\bnew_with_async_value/,
    // `hydrate::<false>` of an AnyAttribute: for `template!` only.
    /\bhydrate_from_template\b/,
    // One AnyAttribute is never rebuilt, as an element's Vec<AnyAttribute> builds all of them anew.
    /\binto_any_attr::rebuild\b/,
    // Lists the routes for the server; loads the code of one before it is shown, for nested routes.
    /\bgenerate_routes\b|\bAnyChooseView>::new::preload\b/,
    // Streams that a browser reads from Rust, for server functions that send or bring some, of which Hark has none; what
    // is made for JavaScript to call stays in the file, called or not.
    /wasm_streams|intounderlying/,
].map(name => name.source).join("|"));
/** What only attributes given to a component or to a clone of an element need... */
const SPREADS = /\bany_view::elements\b|\binto_any_attr::(clone|keys)\b/;
/** ...and what is in the file as soon as there are any. */
const SPREADING = /\bAnyViewWithAttrs\b|into_any_attr::build::<[^,]*\bAnyAttribute\b|\bAnyAttribute> as core\S*::clone::Clone>/;
/** No locals, `unreachable`, `end`. */
const TRAP = Buffer.from([0x00, 0x00, 0x0b]);
const CODE = 10;

const [file] = process.argv.slice(2);
const { bytes, sections, functions } = read(file);
const spreads = functions.some(code => SPREADING.test(code.name));
const neverCalled = name => NEVER_CALLED.test(name) || (!spreads && SPREADS.test(name));
const out = [bytes.subarray(0, 8)];
for (const { id, start, end } of sections) {
    let content = bytes.subarray(start, end);
    if (id === CODE) {
        const bodies = functions.map(code => (neverCalled(code.name) ? TRAP : bytes.subarray(code.start, code.end)));
        content = Buffer.concat([encoded(bodies.length), ...bodies.flatMap(body => [encoded(body.length), body])]);
    }
    out.push(Buffer.from([id]), encoded(content.length), content);
}
writeFileSync(file, Buffer.concat(out));
