// A scenario under a policy: the state it begins in, as one array of numbers of 16 bits, and what actors may choose.

/** {state, choices: [[op, page]] per actor, kinds}; the rules are those of its design from now on, and the places of the
 * state's sections, which they read, are set. */
function systemOf(story, policy) {
  useDesign(story.design);
  const made = begins ? begunBy(story, policy) : begunOfS390(story, policy);
  story.after.forEach((first, t) => {
    W[t * SECTIONS.who.length + SECTIONS.who.indexOf("after")] = first;
    if (first) W[(first - 1) * SECTIONS.who.length + SECTIONS.who.indexOf("awaited")] = 1;
  });
  return { ...made, kinds: story.actors.map(([kind]) => kind) };
}

/** The same by the design's own function, which is translated. */
function begunBy({ memory, actors, machine, title, known }, policy) {
  const said = Object.entries(known.policy).filter(([name, field]) => field.choices && name in policy);
  const words = Object.fromEntries(said.map(([name, { choices }]) => [name, choices[policy[name]]]));
  const asked = { ...words, codes: () => new Map(Object.entries(policy)) };
  const [{ array }, choices] = begins(memory, actors, asked, known.machines.indexOf(machine), title);
  return { state: array, choices };
}

/** A blank state whose sections are asked for as numpy has them: by a field, and by the number of a record. */
function new_state(pages, actors, vms) {
  const made = { array: placed(pages, actors, vms), cfg: sectionOf(C, 0, "cfg", 1), who: sectionOf(W, 0, "who", actors) };
  for (const [section, { base, n }] of Object.entries(PLACES)) made[section] = sectionOf(made.array, base, section, n);
  for (const [field, value] of Object.entries({ pages, actors, vms })) made.cfg[field] = value;
  return made;
}

/** A field of all records of a section. */
class Column {
  constructor(array, first, step, n) {
    Object.assign(this, { array, first, step, n });
  }
  [Symbol.iterator]() {
    return range(this.n).map((i) => this.array[this.first + i * this.step]).values();
  }
  /** Give a value, or one of a list each, to the records of these numbers. */
  set(at, value) {
    list(at.length === undefined ? [at] : at).forEach((i, k) => {
      if (i < 0 || i >= this.n) throw new Refused(`page ${i} does not exist; there are 0 to ${this.n - 1}`);
      this.array[this.first + i * this.step] = Number(typeof value === "object" ? value[k] : value);
    });
  }
}

function sectionOf(array, base, section, n) {
  const fields = SECTIONS[section], step = fields.length, made = {};
  const give = (to, name, get, set) => Object.defineProperty(to, name, { get, set });
  fields.forEach((field, k) => {
    const column = new Column(array, base + k, step, n);
    give(made, field, () => column, (value) => column.set(range(n), typeof value === "object" ? list(value) : value));
  });
  for (let i = 0; i < n; i++) {
    made[i] = {};
    fields.forEach((field, k) => give(made[i], field, () => array[base + i * step + k], (value) => made[field].set(i, value)));
  }
  return made;
}

function begunOfS390(story, policy) {
  const { memory, features, actors } = story;
  const guests = 1 + Math.max(...actors.map(([, actor]) => actor.guest ?? 0), ...memory.owner);
  const state = placed(story.pages, actors.length, guests);
  const at = (section, i, field) => PLACES[section].base + i * SECTIONS[section].length + SECTIONS[section].indexOf(field);
  const cfg = (field, value) => (C[SECTIONS.cfg.indexOf(field)] = value);
  const who = (t, field, value) => (W[t * SECTIONS.who.length + SECTIONS.who.indexOf(field)] = value);
  for (const [name, code] of Object.entries(policy)) cfg(name, code);
  cfg("pages", story.pages), cfg("actors", actors.length);
  cfg("vms", features.one_address_space ? guests : 1), cfg("misc", Number(features.ownership_transfer));
  cfg("stuck", Number(actors.some(([, actor]) => actor.completes === false)));
  const put16 = (section, i, field, value) => (state[at(section, i, field)] = Number(value));
  memoryOf(story, policy, put16);
  const choices = actors.map(([kind, actor], t) => {
    const number = { kind, vm: actor.guest ?? 0, cpu: actor.cpu ?? 0, stuck: Number(actor.completes === false) };
    for (const [field, value] of Object.entries(number)) who(t, field, value);
    put16("task", t, "pc", IDLE_PC[kind]);
    put16("actor", t, "budget", actor.starts), put16("actor", t, "n", actor.pages ?? 1);
    return choicesOf(kind, actor, range(story.pages));
  });
  actors.forEach(([kind, actor], t) => {
    if (kind !== K.WRITEBACK || actor.starts !== K.ENDLESS) return;
    for (const [, page] of choices[t]) put16("pt", page, "cleaned", 1);
  });
  return { state, choices };
}

let PLACES = {};

/** A blank state of so many pages, actors and machines. */
function placed(pages, vcpus, vms) {
  [nPages, nActors, nVms] = [pages, vcpus, vms];
  C = new Int16Array(SECTIONS.cfg.length), W = new Int16Array(SECTIONS.who.length * nActors);
  const many = { uv: pages, mm: pages, vm: vms, task: vcpus, actor: vcpus, io: pages, pt: pages };
  let base = 0;
  for (const [section, n] of Object.entries(many)) {
    PLACES[section] = { base, n };
    base += n * SECTIONS[section].length;
  }
  ({ uv: o_uv, mm: o_mm, vm: o_vm, task: o_task, actor: o_actor, io: o_io, pt: o_pt } =
    Object.fromEntries(Object.entries(PLACES).map(([section, place]) => [section, place.base])));
  return new Int16Array(base + (base & 1));
}

/** The pages of the scenario: what model/scenario.py says of pages that were imported, split or refused before. */
function memoryOf({ memory, pages }, policy, put16) {
  const each = (values) => (values.length === pages ? values : range(pages).map(() => values[0]));
  const words = each(memory.state), owners = [...each(memory.owner)];
  const states = words.map((word) => (word === "exported_shared" ? K.EXPORTED : DESIGNS.s390.states.indexOf(word)));
  states.forEach((state, p) => {
    if (state === K.NON_SECURE) owners[p] = 0;
    put16("uv", p, "shared", words[p] === "exported_shared");
    put16("mm", p, "backing", DESIGNS.s390.memory.backing.choices.indexOf(memory.backing));
    put16("mm", p, "writable", memory.writable);
    put16("mm", p, "dirty", memory.dirty ?? (memory.backing === "iomap" && memory.writable));
    put16("pt", p, "present", K.MAPPED);
  });
  for (const page of memory.refuses) put16("uv", page, "refuses", 1);
  let first = 0;
  for (const order of memory.folios) {
    folioOf(range(first, first + (1 << order)), order, policy, states, owners, put16);
    first += 1 << order;
  }
  states.forEach((state, p) => (put16("uv", p, "state", state), put16("uv", p, "owner", owners[p])));
}

/** Order and arch bits of one folio. */
function folioOf(folio, order, policy, states, owners, put16) {
  const large = DESIGNS.s390.policy.large.choices[policy.large], track = DESIGNS.s390.policy.track.choices[policy.track];
  if (order && (large === "refuse" || large === "never")) for (const p of folio) states[p] = owners[p] = 0;
  const marked = folio.map((p) => Number(states[p] === K.SECURE || states[p] === K.SHARED));
  const split = large === "split" && folio.some((p) => states[p] !== K.NON_SECURE);
  const all = sum(marked), byFolio = !split && track === "folio";
  folio.forEach((p, n) => {
    put16("mm", p, "order", split ? 0 : order);
    put16("mm", p, "arch", byFolio ? n === 0 && all > 0 : marked[n]);
    put16("mm", p, "marked", split ? marked[n] : n ? 0 : byFolio ? all > 0 : all);
  });
}

/** What an actor may choose, (op, page) in a fixed order. */
function choicesOf(kind, actor, all) {
  const word = KIND_NAMES[kind], op = (name) => OPS.indexOf(name);
  const each = (name, pages) => pages.map((page) => [op(name), page]);
  if (word === "vcpu") {
    const named = actor.touch.length || actor.share.length || actor.unshare.length;
    return [...each("touch", named ? actor.touch : all), ...each("share", actor.share), ...each("unshare", actor.unshare)];
  }
  if (word === "access") {
    const reads = actor.read.length || actor.write.length ? actor.read : all;
    return [...each("read", reads), ...each("write", actor.write)];
  }
  if (word === "reboot") return [[op(actor.shutdown ? "nothing" : "touch"), 0]];
  return each("touch", Number.isInteger(actor.page) ? [actor.page] : actor.page.length ? actor.page : all);
}
