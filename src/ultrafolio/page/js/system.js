// A scenario under a policy: the state it begins in, as one array of numbers of 16 bits, and what actors may choose.

/** {state, choices: [[op, page]] per actor, kinds}; the rules are those of its design from now on, and the places of the
 * state's sections, which they read, are set. */
function systemOf(story, policy) {
  useDesign(story.design);
  const { memory, actors, machine, title, known } = story;
  const said = Object.entries(known.policy).filter(([name, field]) => field.choices && name in policy);
  const words = Object.fromEntries(said.map(([name, { choices }]) => [name, choices[policy[name]]]));
  const asked = { ...words, codes: () => new Map(Object.entries(policy)) };
  let state, choices;
  if (begins) [state, choices] = begins(memory, actors, asked, known.machines.indexOf(machine), title);
  else {
    const guests = 1 + Math.max(...actors.map(([, actor]) => actor.guest ?? 0), ...memory.owner);
    state = new_state(story.pages, actors.length, guests);
    choices = begunOfS390(state, story, asked);
  }
  state.who.after = story.after;
  for (const first of story.after) if (first) state.who[first - 1].awaited = 1;
  return { state: state.array, choices, kinds: actors.map(([kind]) => kind) };
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
  /** Give a value, or one of a list each, to the records of these numbers, or for which a list says true. */
  set(at, value) {
    const one = !Array.isArray(at), mask = typeof at[0] === "boolean";
    (one ? [at] : mask ? range(at.length).filter((i) => at[i]) : at).forEach((i, k) => {
      this.array[this.first + i * this.step] = Number(Array.isArray(value) ? value[k] : value);
    });
  }
}

/** A section as numpy has it: its columns by field, its records by number. */
function sectionOf(array, base, section, n) {
  const fields = SECTIONS[section], step = fields.length, made = {};
  const give = (to, name, get, set) => Object.defineProperty(to, name, { get, set });
  fields.forEach((field, k) => {
    const column = new Column(array, base + k, step, n);
    give(made, field, () => column, (value) => column.set(range(n), isArray(value) ? list(value) : value));
  });
  const row = (i) => fields.reduce((one, field, k) =>
    give(one, field, () => array[base + i * step + k], (value) => made[field].set(i, value)), {});
  for (let i = 0; i < n; i++) {
    give(made, i, () => row(i), (values) => fields.forEach((field, k) => made[field].set(i, values[k])));
  }
  return made;
}

/** Enter pages and actors of s390, as model/scenario.py's system() does; returns the choices. */
function begunOfS390(state, { memory, features, actors, pages }, asked) {
  for (const [name, code] of asked.codes()) state.cfg[name] = code;
  if (!features.one_address_space) state.cfg.vms = 1;
  state.cfg.misc = features.ownership_transfer;
  state.cfg.stuck = actors.some(([, actor]) => actor.completes === false);
  state.pt.present = K.MAPPED;
  _memory(state, memory, asked);
  return actors.map(([kind, actor], t) => {
    const choices = _actor(state, t, kind, actor, pages);
    if (kind === K.WRITEBACK && actor.starts === K.ENDLESS) put(state.pt.cleaned, choices.map(([, page]) => page), 1);
    return choices;
  });
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
