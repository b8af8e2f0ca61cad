// Every interleaving of a system's steps, in breadth-first order: states, edges, and what breaks on the way.

/** A row of numbers that grows. */
class Row {
  constructor(kind = Int32Array, room = 1024) {
    this.values = new kind(room);
    this.length = 0;
  }
  push(value) {
    if (this.length === this.values.length) this.fit(this.length + 1);
    this.values[this.length++] = value;
  }
  /** Make room for so many. */
  fit(length) {
    if (length <= this.values.length) return;
    const wider = new this.values.constructor(Math.max(length, 2 * this.values.length));
    wider.set(this.values);
    this.values = wider;
  }
}

/** A word at its place as 32 bits that look like chance: the finalizer of MurmurHash3, Appleby 2011. */
function mixed(i, word) {
  let h = Math.imul(word ^ Math.imul(i + 1, 0x9e3779b1), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/** The states of a graph, each a row of words of 32 bits, found again by their hash. */
class States {
  constructor(state) {
    this.size = state.length >> 1;
    this.rows = new Row(Int32Array, 1024 * this.size);
    this.hashes = new Row();
    this.table = new Int32Array(4096);
    this.count = 0;
    this.changed = new Int32Array(this.size);
    this.differ = 0;
  }

  /** State `number`, to be read; good until another state is entered. */
  at(number) {
    return new Int16Array(this.rows.values.buffer, number * this.size * 4, this.size * 2);
  }

  load(number, words) {
    const rows = this.rows.values, from = number * this.size;
    for (let i = 0; i < this.size; i++) words[i] = rows[from + i];
  }

  /** The hash of a state: of each word by itself, so that it follows from another state's and what differs. */
  hash(words) {
    let h = 0;
    for (let i = 0; i < this.size; i++) h ^= mixed(i, words[i]);
    return h;
  }

  /** The hash of the state that a step from state `number` left in `words`; notes which words differ. */
  hashAfter(number, words) {
    const rows = this.rows.values, from = number * this.size;
    let h = this.hashes.values[number], n = 0;
    for (let i = 0; i < this.size; i++) {
      const was = rows[from + i];
      if (words[i] === was) continue;
      h ^= mixed(i, words[i]) ^ mixed(i, was);
      this.changed[n++] = i;
    }
    this.differ = n;
    return h;
  }

  /** Put state `number` back where hashAfter() found words that differ. */
  undo(number, words) {
    const rows = this.rows.values, from = number * this.size;
    for (let n = 0; n < this.differ; n++) words[this.changed[n]] = rows[from + this.changed[n]];
  }

  /** The number of the state in `words`, which is entered where it is new. */
  number(words, h) {
    const size = this.size, mask = this.table.length - 1, hashes = this.hashes.values, rows = this.rows.values;
    let slot = h & mask;
    for (let found = this.table[slot]; found; found = this.table[slot]) {
      if (hashes[found - 1] === h) {
        let i = 0;
        for (let at = (found - 1) * size; i < size && rows[at + i] === words[i]; i++);
        if (i === size) return found - 1;
      }
      slot = (slot + 1) & mask;
    }
    this.table[slot] = this.count + 1;
    this.rows.fit((this.count + 1) * size);
    this.rows.values.set(words, this.count * size);
    this.hashes.push(h);
    if (2 * ++this.count > this.table.length) this.widen();
    return this.count - 1;
  }

  widen() {
    this.table = new Int32Array(2 * this.table.length);
    const mask = this.table.length - 1;
    for (let n = 0; n < this.count; n++) {
      let slot = this.hashes.values[n] & mask;
      while (this.table[slot]) slot = (slot + 1) & mask;
      this.table[slot] = n + 1;
    }
  }
}

/**
 * The state graph of a system: like check/search/graph.py's Graph. It yields the number of states now and then.
 *
 * complete        false where `most` states, or MOST_WORDS words of states, were not enough
 * first, to, via  edges: per state its first one; their targets, and actor << 16 | choice
 * parent, by      the edge on which a state was first reached
 * pending, enabled  per state a bit for each actor: it has begun something; its fair step is enabled
 * found           per property: the first step that breaks it, [state, by], or null
 * fair            per rule whether it is fair
 * met             per vCPU, which leads-to of the two, outcome and page: the first state in which its step met that
 * fired           per rule: steps taken
 */
function* exploring(system, most) {
  const states = new States(system.state), graph = { system, states, complete: true, fired: new Map(), found: [], met: new Map(),
    fair: range(LAST_RULE + 1).map((pc) => RULES.has(pc) && RULES.get(pc).fair) };
  const [first, to, via, parent, by, pending, enabled] = range(7).map(() => new Row());
  Object.assign(graph, { first, to, via, parent, by, pending, enabled });
  const state = system.state.slice(), words = new Int32Array(state.buffer), fired = new Int32Array(LAST_RULE + 1);
  const limit = Math.min(most, Math.floor(MOST_WORDS / states.size));
  states.number(words, states.hash(words));
  parent.push(-1), by.push(-1);
  for (let number = 0; number < states.count; number++) {
    if (states.count > limit) {
      graph.complete = false;
      break;
    }
    first.push(to.length);
    expand(graph, number, state, words, fired);
    if (number % 1024 === 1023) yield states.count;
  }
  first.push(to.length);
  fired.forEach((n, pc) => RULES.has(pc) && graph.fired.set(pc, n));
  return graph;
}

/** Take every step of one state. `state` and `words` are one buffer, in which the steps run. */
function expand(graph, number, state, words, fired) {
  const { states, system, to, via, parent, by, found, fair } = graph;
  const taskSize = SECTIONS.task.length, pcAt = o_task + SECTIONS.task.indexOf("pc");
  const uvSize = SECTIONS.uv.length, wasAt = o_uv + SECTIONS.uv.indexOf("state");
  let pending = 0, enabled = 0;
  states.load(number, words);
  for (let t = 0; t < nActors; t++) {
    const pc = state[pcAt + t * taskSize], kind = system.kinds[t], idle = pc === IDLE_PC[kind];
    if (is_pending(state, t)) pending |= 1 << t;
    const choices = idle ? system.choices[t] : NO_CHOICE;
    for (let i = 0; i < choices.length; i++) {
      const op = choices[i][0], page = choices[i][1], p = focus(state, t, page), was = state[wasAt + p * uvSize];
      const outcome = step(state, t, op, page);
      if (kind === K.VCPU && pc > K.AGAIN) meets(graph, number, state, t, outcome);
      if (outcome < 0) continue;
      const wrong = broken(state, t, pc, p, was, outcome);
      if (wrong && !found[wrong]) found[wrong] = [number, (t << 16) | i];
      fired[pc]++;
      if (!idle && fair[pc]) enabled |= 1 << t;
      const target = states.number(words, states.hashAfter(number, words));
      if (target === parent.length) parent.push(number), by.push((t << 16) | i);
      to.push(target), via.push((t << 16) | i);
      states.undo(number, words);
    }
  }
  graph.pending.push(pending), graph.enabled.push(enabled);
}

/** Note what a vCPU's step met the first time: `outcome` is that it came back with, or why it was refused. */
function meets(graph, number, state, t, outcome) {
  if (outcome > 0 && !BUSY.includes(outcome)) return;
  const code = outcome > 0 ? outcome : REFUSALS - outcome, page = fieldOf(state, "actor", t, "page");
  const second = Number(fieldOf(state, "actor", t, "op") >= SECOND), key = ((2 * t + second) * 256 + code) * 4096 + page;
  if (!graph.met.has(key)) graph.met.set(key, { number, t, second, code, outcome, page });
}

const NO_CHOICE = [[0, 0]];

/** The rule that actor `t` stands at; undefined where it stands at none. */
const ruleAt = (state, t) => RULES.get(fieldOf(state, "task", t, "pc"));

/** What a field of a section has, of one of its records. */
const fieldOf = (state, section, i, field) => state[PLACES[section].base + i * SECTIONS[section].length + SECTIONS[section].indexOf(field)];

/** Steps to a state. */
function depthOf(graph, number) {
  let depth = 0;
  for (; number; number = graph.parent.values[number]) depth++;
  return depth;
}
