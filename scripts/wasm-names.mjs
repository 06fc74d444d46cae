// Shortens the names that a WebAssembly file shares with the JavaScript which wasm-bindgen made for it, both in place:
// node wasm-names.mjs FILE.wasm, next to FILE.js. They are long and end in hashes, which no compression helps.
// Whatever one of the two no longer has, after wasm-opt, is left out of the other.
import { readFileSync, writeFileSync } from "node:fs";
import { encoded, read } from "./wasm.mjs";

const IMPORTS = 2;
const EXPORTS = 7;

const [file] = process.argv.slice(2);
const script = file.replace(/\.wasm$/, ".js");
const { bytes, sections, imports, exports } = read(file);
let js = readFileSync(script, "utf8");

const check = (is, what) => {
    if (!is) throw new Error(`${script}: ${what}. Does wasm-bindgen write it in another way now?`);
};
const names = all => new Map(all.map(({ name }, i) => [name, `_${i}`]));

// Classes of objects that Rust makes for JavaScript. Without `__wrap` none is ever made.
for (const [text, name] of js.matchAll(/^export class (\w+) \{\n[^]*?^\}\n.*\n/gm)) {
    if (!text.includes("__wrap(")) {
        js = js.replace(text, "").replace(new RegExp(`^const ${name}Finalization = [^;]*;\n`, "m"), "");
    }
}

const imported = names(imports);
const found = new Set();
js = js.replace(/^ {8}(\w+)(: function[^]*?^ {8}\}.*\n)/gm, (_, name, rest) => {
    found.add(name);
    return imported.has(name) ? `        ${imported.get(name)}${rest}` : "";
});
check(imports.every(({ name }) => found.has(name)), "not all imports are there");
const [{ module }] = imports;
check(imports.every(shared => shared.module === module) && js.split(`"${module}"`).length === 2, "not one module of imports");
js = js.replace(`"${module}"`, '"a"');

const used = new Set(Array.from(js.matchAll(/\bwasm\.(\w+)/g), ([, name]) => name));
const exported = names(exports.filter(({ name }) => used.has(name)));
check(exported.size === used.size, "not all exports that it uses are in the file");
js = js.replace(/\bwasm\.(\w+)/g, (_, name) => `wasm.${exported.get(name)}`);

const text = value => Buffer.concat([encoded(Buffer.byteLength(value)), Buffer.from(value)]);
const section = (all, entry) => Buffer.concat([encoded(all.length), ...all.flatMap(entry)]);
const contents = {
    [IMPORTS]: section(imports, ({ name, start, end }) => [text("a"), text(imported.get(name)), bytes.subarray(start, end)]),
    [EXPORTS]: section(exports.filter(({ name }) => used.has(name)), ({ name, start, end }) => [
        text(exported.get(name)),
        bytes.subarray(start, end),
    ]),
};
const out = [bytes.subarray(0, 8)];
for (const { id, start, end } of sections) {
    const content = contents[id] ?? bytes.subarray(start, end);
    out.push(Buffer.from([id]), encoded(content.length), content);
}
writeFileSync(file, Buffer.concat(out));
writeFileSync(script, js);
