// Says which crates the code of a WebAssembly file comes from, largest first: node bundle-parts.mjs FILE [COUNT].
// The file must hold its name section, as cargo leaves it before wasm-bindgen and wasm-opt. A generic function counts
// for the crate that wrote it, not for the one that uses it. bundle-size calls this.
import { readFileSync } from "node:fs";

const [file, count = "12"] = process.argv.slice(2);
const bytes = readFileSync(file);
let at = 8;

/** Reads an unsigned LEB128 number. */
function number() {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
        const byte = bytes[at++];
        value += (byte & 127) * shift;
        if (byte < 128) return value;
    }
}

function text() {
    const length = number();
    at += length;
    return bytes.toString("utf8", at - length, at);
}

/** Skips the limits of a table or memory. */
function limits() {
    const flags = bytes[at++];
    number();
    if (flags & 1) number();
}

const sections = new Map();
let imported = 0;
const sizes = [];
const names = new Map();

const read = {
    0(end) {
        if (text() !== "name") return;
        while (at < end) {
            const kind = bytes[at++];
            const next = number() + at;
            if (kind === 1) {
                for (let left = number(); left > 0; left--) names.set(number(), text());
            }
            at = next;
        }
    },
    2() {
        for (let left = number(); left > 0; left--) {
            text();
            text();
            const kind = bytes[at++];
            if (kind === 0) { number(); imported++; }
            else if (kind === 1) { at++; limits(); }
            else if (kind === 2) limits();
            else at += 2;
        }
    },
    10() {
        for (let left = number(); left > 0; left--) {
            const size = number();
            sizes.push(size);
            at += size;
        }
    },
};

while (at < bytes.length) {
    const id = bytes[at++];
    const end = number() + at;
    sections.set(id, (sections.get(id) ?? 0) + end - at);
    read[id]?.(end);
    at = end;
}
if (names.size === 0) {
    console.error(`bundle-parts: ${file} has no names`);
    process.exit(1);
}

/** The crate that a mangled name begins with, of both kinds: `_ZN4hark3app…`, `_ZN9_$LT$T…`, `_RNvMs_NtCs1a_4core…`. */
function crate(name) {
    const [, root, length] = /^_R.*?(C(?:s[0-9A-Za-z]*_)?([0-9]+)_?)(?=[a-z_])/.exec(name) ?? [];
    if (root) {
        const start = name.indexOf(root) + root.length;
        return name.slice(start, start + Number(length));
    }
    const [, prefix, size] = /^(_ZN([0-9]+))/.exec(name) ?? [];
    if (!prefix) return "other";
    const path = name.slice(prefix.length, prefix.length + Number(size));
    if (!path.includes("$")) return path;
    // An implementation: the type's crate, or the trait's where the type is a parameter or built in.
    const own = /^_?(?:\$(?:LT|RF|LP|u5b)\$|(?:mut|dyn)\$u20\$)*([a-z_][a-z_0-9]*)\.\./.exec(path);
    const trait = /\$u20\$as\$u20\$([a-z_][a-z_0-9]*)\.\./.exec(path);
    return own?.[1] ?? trait?.[1] ?? "other";
}

const crates = new Map();
sizes.forEach((size, i) => {
    const name = crate(names.get(imported + i) ?? "");
    crates.set(name, (crates.get(name) ?? 0) + size);
});
const code = sizes.reduce((sum, size) => sum + size, 0);
const line = (name, size, of) =>
    console.log(`bundle:   ${name.padEnd(24)} ${String(size).padStart(9)} bytes, ${((size / of) * 100).toFixed(1)}%`);

console.log("bundle: largest parts, before wasm-opt and without compression");
const data = sections.get(11) ?? 0;
line("texts and tables", data, code + data);
[...crates].sort((a, b) => b[1] - a[1]).slice(0, Number(count)).forEach(([name, size]) => line(name, size, code + data));
