"use strict";
// A replay: its frames, and the page codes at the shown frame. No rule is here: a frame has its changes, and `go`
// applies them. Changes are runs (services/lab/codes.py): first page, number of pages, code, first page, …

/** The look of the shown group's design (services/lab/looks.py). */
let look = null;

/** Unpacks a page's code by the fields of the look. */
function page(code) {
  const made = {};
  let at = 0;
  for (const [name, width] of look.fields) {
    made[name] = (code >>> at) & ((1 << width) - 1);
    at += width;
  }
  return made;
}

/** Whether a page, as `page` returns it, has a sign of the look. */
const has = (one, [, , field, mask]) => Boolean(one[field] & mask);

/** Returns the bit of a code that says whether a page is the first of its folio. */
function headBit() {
  let at = 0;
  for (const [name, width] of look.fields) {
    if (name === "head") return 1 << at;
    at += width;
  }
  return 0;
}

class GroupReplay {
  constructor(base) {
    look = base.look;
    this.base = base;
    this.head = headBit();
    this.frames = [];
    this.codes = new Int32Array(base.pages);
    enter(this.codes, base.runs);
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

  /** Go to frame n. Returns the changed pages as ranges [first page, page after the last]; ranges may overlap. */
  go(n) {
    const changed = [];
    const apply = (runs) => {
      enter(this.codes, runs);
      changed.push(...ranges(runs));
    };
    while (this.n < n) {
      const { runs } = this.frame(++this.n);
      this.before[this.n - this.base.n] = ranges(runs).flatMap(([first, end]) => runsOf(this.codes, first, end));
      apply(runs);
    }
    while (this.n > n) apply(this.before[this.n-- - this.base.n]);
    return changed;
  }

  /** Returns [first page, page after the last] of the folio of page p. */
  folio(p) {
    let first = p, end = p + 1;
    while (first > 0 && !(this.codes[first] & this.head)) first--;
    while (end < this.codes.length && !(this.codes[end] & this.head)) end++;
    return [first, end];
  }
}

/** Enter runs in the codes of all pages. */
function enter(codes, runs) {
  for (let i = 0; i < runs.length; i += 3) codes.fill(runs[i + 2], runs[i], runs[i] + runs[i + 1]);
}

/** Returns the pages of runs as ranges [first page, page after the last]; runs that follow each other are one. */
function ranges(runs) {
  const made = [];
  for (let i = 0; i < runs.length; i += 3) {
    const first = runs[i], end = first + runs[i + 1], last = made.at(-1);
    if (last && last[1] === first) last[1] = end;
    else made.push([first, end]);
  }
  return made;
}

/** Returns the codes of the pages from `first` to before `end` as runs. */
function runsOf(codes, first, end) {
  const made = [];
  for (let p = first; p < end;) {
    const from = p, code = codes[p];
    while (p < end && codes[p] === code) p++;
    made.push(from, p - from, code);
  }
  return made;
}

/** Returns the words for a page's fields: that of a value, or a count with its noun. */
function marks(one) {
  const count = (n, width, noun) => n && plural(n, noun).replace(String(n), n === (1 << width) - 1 ? `${n} or more` : n);
  return look.fields.map(([name, width, words]) => (
    Array.isArray(words) ? words[one[name]] : count(one[name], width, words))).filter(Boolean);
}
