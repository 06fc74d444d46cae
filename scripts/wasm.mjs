// Reads a WebAssembly file (core specification, 5 "Binary Format") as far as bundle-parts and the other wasm-*.mjs need
// it: its sections, the functions with their names, and what it shares with JavaScript.
import { readFileSync } from "node:fs";

/**
 * @typedef {{ id: number, start: number, end: number }} Section Where its content stands in the file.
 * @typedef {{ name: string, start: number, end: number }} Code A function's body, after its length. Without a name, "".
 * @typedef {{ module?: string, name: string, start: number, end: number }} Shared An import or export; what follows the name.
 */

/**
 * @param {string} file
 * @returns {{ bytes: Buffer, sections: Section[], functions: Code[], imports: Shared[], exports: Shared[] }} All in their
 *     order in the file.
 */
export function read(file) {
    const bytes = readFileSync(file);
    if (bytes.readUInt32BE(0) !== 0x0061736d) throw new Error(`${file} is not WebAssembly`);
    let at = 8;

    /** Reads an unsigned LEB128 number. */
    const number = () => {
        let value = 0;
        for (let shift = 1; ; shift *= 128) {
            const byte = bytes[at++];
            value += (byte & 127) * shift;
            if (byte < 128) return value;
        }
    };
    const text = () => {
        const length = number();
        at += length;
        return bytes.toString("utf8", at - length, at);
    };
    /** Skips the limits of a table or memory. */
    const limits = () => {
        const flags = bytes[at++];
        number();
        if (flags & 1) number();
    };

    const sections = [];
    const functions = [];
    const imports = [];
    const exports = [];
    const names = new Map();
    let imported = 0;
    const readers = {
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
                const shared = { module: text(), name: text(), start: at };
                const kind = bytes[at++];
                if (kind === 0) { number(); imported++; }
                else if (kind === 1) { at++; limits(); }
                else if (kind === 2) limits();
                else at += 2;
                imports.push({ ...shared, end: at });
            }
        },
        7() {
            for (let left = number(); left > 0; left--) {
                const shared = { name: text(), start: at++ };
                number();
                exports.push({ ...shared, end: at });
            }
        },
        10() {
            for (let left = number(); left > 0; left--) {
                const size = number();
                functions.push({ name: "", start: at, end: at + size });
                at += size;
            }
        },
    };
    while (at < bytes.length) {
        const id = bytes[at++];
        const size = number();
        const start = at;
        sections.push({ id, start, end: start + size });
        readers[id]?.(start + size);
        at = start + size;
    }
    functions.forEach((code, i) => (code.name = names.get(imported + i) ?? ""));
    return { bytes, sections, functions, imports, exports };
}

/** @param {number} value @returns {Buffer} The number as unsigned LEB128. */
export function encoded(value) {
    const out = [];
    do {
        const more = value >= 128 ? 128 : 0;
        out.push((value & 127) | more);
        value = Math.floor(value / 128);
    } while (value > 0);
    return Buffer.from(out);
}
