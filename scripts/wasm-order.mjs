// Puts functions of a WebAssembly file that are alike side by side, where Brotli finds that they are, in place:
// node wasm-order.mjs FILE. Each is followed by the one that shares most pieces of code with it, whatever both call: that
// number changes with the order. Knows the instructions that Rust and wasm-bindgen use, and fails at any other.
import { writeFileSync } from "node:fs";
import { encoded, read } from "./wasm.mjs";

const [FUNCTIONS, EXPORTS, START, ELEMENTS, CODE] = [3, 7, 8, 9, 10];
const [CALL, REF_FUNC] = [0x10, 0xd2];
/** Bytes in a piece of code. */
const PIECE = 6;
/** A piece in more functions than this says little, and takes long. */
const COMMON = 1000;

const [file] = process.argv.slice(2);
const { bytes, sections, functions, imports } = read(file);
const imported = imports.filter(({ start }) => bytes[start] === 0).length;
let at = 0;

/** Reads an unsigned LEB128 number, or skips a signed one. */
function number() {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
        const byte = bytes[at++];
        value += (byte & 127) * shift;
        if (byte < 128) return value;
    }
}
const numbers = count => Array.from({ length: count }, number);

/** Skips what follows the code of an instruction, all but the function that `call` and `ref.func` name. */
function operands(op) {
    if (op === 0x0e) numbers(number() + 1); // br_table
    else if (op === 0x1c) numbers(number()); // select with types
    else if (op === 0x43) at += 4; // f32.const
    else if (op === 0x44) at += 8; // f64.const
    else if (op === 0x11 || (op >= 0x28 && op <= 0x3e)) numbers(2); // call_indirect, load and store
    else if ((op >= 0x02 && op <= 0x04) || op === 0x0c || op === 0x0d) number(); // block, loop, if, br, br_if
    else if ((op >= 0x20 && op <= 0x26) || (op >= 0x3f && op <= 0x42) || op === 0xd0) number(); // variables, memory, constants
    else if (op === 0xfc) {
        // Conversions, then memory and tables.
        const more = number();
        if (more > 17) throw new Error(`${file}: unknown instruction fc ${more} at ${at}`);
        numbers([0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1][more]);
    } else if (op > 0xc4 && op !== 0xd1) throw new Error(`${file}: unknown instruction ${op.toString(16)} at ${at}`);
}

/** A function's body in parts: what does not depend on the order, and numbers of functions. */
function parts({ start, end }) {
    const all = [];
    at = start;
    for (let left = number(); left > 0; left--) numbers(2);
    let from = start;
    while (at < end) {
        const op = bytes[at++];
        if (op === CALL || op === REF_FUNC) {
            all.push(bytes.subarray(from, at), number());
            from = at;
        } else operands(op);
    }
    all.push(bytes.subarray(from, end));
    return all;
}

/** @returns {number[]} The functions in their new order, by their old numbers without imports. */
function order(bodies) {
    const pieces = bodies.map(body => {
        const code = body.map(part => (typeof part === "number" ? "" : part.toString("latin1"))).join("");
        return new Set(Array.from({ length: Math.max(0, code.length - PIECE + 1) }, (_, i) => code.slice(i, i + PIECE)));
    });
    const holders = new Map();
    pieces.forEach((own, i) => own.forEach(piece => (holders.get(piece) ?? holders.set(piece, []).get(piece)).push(i)));

    const left = new Set(bodies.keys());
    const all = [];
    for (let last = 0; ; ) {
        all.push(last);
        left.delete(last);
        if (left.size === 0) return all;
        const shared = new Map();
        for (const piece of pieces[last]) {
            const alike = holders.get(piece);
            if (alike.length > COMMON) continue;
            for (const i of alike) if (left.has(i)) shared.set(i, (shared.get(i) ?? 0) + 1);
        }
        let best = 0;
        let [next] = left;
        for (const [i, count] of shared) {
            // Of all pieces of both; 10 for long ones before short ones that are alike by chance.
            const likeness = count / (pieces[last].size + pieces[i].size - count + 10);
            if (likeness > best) [best, next] = [likeness, i];
        }
        last = next;
    }
}

const bodies = functions.map(parts);
const ordered = order(bodies);
const moved = [];
ordered.forEach((old, i) => (moved[old] = i + imported));
const now = old => encoded(old < imported ? old : moved[old - imported]);
const list = entries => Buffer.concat([encoded(entries.length), ...entries]);
/** Entries of a section that each end in numbers of functions. */
const entries = read => list(Array.from({ length: number() }, read));
const since = start => bytes.subarray(start, at);

const contents = {
    [FUNCTIONS]() {
        const types = numbers(number()).map(encoded);
        return list(ordered.map(old => types[old]));
    },
    [EXPORTS]: () =>
        entries(() => {
            const start = at;
            const length = number();
            at += length;
            const kind = bytes[at++];
            const head = since(start);
            const index = number();
            return Buffer.concat([head, kind === 0 ? now(index) : encoded(index)]);
        }),
    [START]: () => now(number()),
    [ELEMENTS]: () =>
        entries(() => {
            const start = at;
            // Active, for the first table, from a constant on: `i32.const`, number, `end`.
            if (number() !== 0 || bytes[at++] !== 0x41) throw new Error(`${file}: unknown elements at ${start}`);
            numbers(1);
            at++;
            const head = since(start);
            return Buffer.concat([head, list(numbers(number()).map(now))]);
        }),
    [CODE]: () =>
        list(
            ordered.map(old => {
                const body = Buffer.concat(bodies[old].map(part => (typeof part === "number" ? now(part) : part)));
                return Buffer.concat([encoded(body.length), body]);
            }),
        ),
};
const out = [bytes.subarray(0, 8)];
for (const { id, start, end } of sections) {
    at = start;
    const content = contents[id]?.() ?? bytes.subarray(start, end);
    out.push(Buffer.from([id]), encoded(content.length), content);
}
writeFileSync(file, Buffer.concat(out));
