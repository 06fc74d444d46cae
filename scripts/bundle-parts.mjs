// Says which crates the code of a WebAssembly file comes from, largest first: node bundle-parts.mjs FILE [COUNT].
// The file must hold its name section, as cargo leaves it before wasm-bindgen and wasm-opt. A generic function counts
// for the crate that wrote it, not for the one that uses it. bundle-size calls this.
import { read } from "./wasm.mjs";

const [file, count = "12"] = process.argv.slice(2);
const { sections, functions } = read(file);
if (functions.every(code => code.name === "")) {
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
let code = 0;
for (const { name, start, end } of functions) {
    // Read and dropped by wasm-bindgen.
    if (name.startsWith("__wbindgen_describe")) continue;
    const origin = crate(name);
    crates.set(origin, (crates.get(origin) ?? 0) + end - start);
    code += end - start;
}
const line = (name, size, of) =>
    console.log(`bundle:   ${name.padEnd(24)} ${String(size).padStart(9)} bytes, ${((size / of) * 100).toFixed(1)}%`);

console.log("bundle: largest parts, before wasm-opt and without compression");
const data = sections.filter(section => section.id === 11).reduce((sum, section) => sum + section.end - section.start, 0);
line("texts and tables", data, code + data);
[...crates].sort((a, b) => b[1] - a[1]).slice(0, Number(count)).forEach(([name, size]) => line(name, size, code + data));
