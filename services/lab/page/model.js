"use strict";
// A replay: its frames, and the page codes at the shown frame. No rule is here: a frame has its changes, and `go`
// applies them.

const STATES = ["NON_SECURE", "SECURE", "SHARED", "PINNED_SHARED", "EXPORTED"];
const LETTERS = "NSHPE";

/** Unpacks a page's code, which services/lab/replay.py packs. */
function page(code) {
  let at = 0;
  const bits = (width) => { at += width; return (code >>> (at - width)) & ((1 << width) - 1); };
  return {
    state: bits(3), arch: bits(1), over: bits(1), locked: bits(1), frozen: bits(1), writeback: bits(2), dirty: bits(1),
    flying: bits(1), head: bits(1), pins: bits(6), longs: bits(6), refs: bits(7),
  };
}

const HEAD = 1 << 11;

class GroupReplay {
  constructor(base) {
    this.base = base;
    this.frames = [];
    this.codes = Int32Array.from(base.pages);
    this.before = [];
    this.keys = new Map();
    this.n = this.end = base.n;
    this.waits = base.waits;
  }

  /** Append frames; a frame has `waits` only if they differ from the frame before. */
  add(frames) {
    for (const frame of frames) {
      const last = this.frames.length ? this.frames.at(-1).waits : this.base.waits;
      frame.waits = frame.waits || last;
      // entries with the same steps have the same key
      const steps = JSON.stringify(frame.steps);
      if (!this.keys.has(steps)) this.keys.set(steps, this.keys.size);
      frame.key = this.keys.get(steps);
      this.frames.push(frame);
      this.end = frame.n;
    }
  }

  get last() { return this.frames.length ? this.frames.at(-1).id : this.base.id; }
  frame(n) { return this.frames[n - this.base.n - 1] || null; }
  waitsAt(n) { return n === this.base.n ? this.base.waits : this.frame(n).waits; }

  /** Go to frame n. Returns the changed pages, as a Set. */
  go(n) {
    const changed = new Set();
    while (this.n < n) {
      const { pages } = this.frame(++this.n), was = [];
      for (let i = 0; i < pages.length; i += 2) {
        was.push(this.codes[pages[i]]);
        this.codes[pages[i]] = pages[i + 1];
        changed.add(pages[i]);
      }
      this.before[this.n - this.base.n] = was;
    }
    while (this.n > n) {
      const { pages } = this.frame(this.n), was = this.before[this.n - this.base.n];
      // a page occurs once in a frame, so the order does not matter
      for (let i = 0; i < pages.length; i += 2) {
        this.codes[pages[i]] = was[i / 2];
        changed.add(pages[i]);
      }
      this.n--;
    }
    return changed;
  }

  /** Returns [first page, page after the last] of the folio of page p. */
  folio(p) {
    let first = p, end = p + 1;
    while (first > 0 && !(this.codes[first] & HEAD)) first--;
    while (end < this.codes.length && !(this.codes[end] & HEAD)) end++;
    return [first, end];
  }
}

/** Returns the words for a page's pins, I/O, locks and references. */
function marks(one) {
  const count = (n, width, noun) => n && plural(n, noun).replace(String(n), n === (1 << width) - 1 ? `${n} or more` : n);
  return [
    one.over ? "arch bit set, though it is not secure" : one.arch && "arch bit set",
    count(one.longs, 6, "long-term pin"), count(one.pins, 6, "pin"),
    one.writeback && ["", "flagged for writeback", "being written back", ""][one.writeback],
    one.flying && "I/O in flight", one.locked && "locked", one.frozen && "reference count frozen", one.dirty && "dirty",
    count(one.refs, 7, "extra reference"),
  ].filter(Boolean);
}
