// From a graph to the verdict that `ultrafolio check` prints: check/verdicts/verdict.py over this page's graph.

/** The Result of an explored scenario under a policy; unknown where the graph is not complete. */
function resultOf(graph, story, name, policyName, command) {
  const kinds = new Set(graph.system.kinds.map((kind) => KIND_NAMES[kind])), fired = new Map();
  for (const [pc, n] of graph.fired) {
    if (TAKERS.get(pc).some((kind) => kinds.has(kind))) fired.set(RULES.get(pc).name, n);
  }
  const findings = [...safetyOf(graph), ...livenessOf(graph)], count = graph.states.count;
  const reason = graph.complete ? "" : `limit of ${plural(count - 1, "state")} reached`;
  return new Result(name, policyName, findings, count, graph.to.length, depthOf(graph, count - 1), graph.complete,
    reason, fired, command, scopeOf(story, policyOf(policyName, story)));
}

function safetyOf(graph) {
  return range(1, PROPERTIES.length).map((number) => {
    const found = graph.found[number];
    if (!found) return new Finding(PROPERTIES[number], graph.complete ? "holds" : "unknown");
    const [state, by] = found, way = [...calmestPath(graph, state, by >> 16), by];
    return new Finding(PROPERTIES[number], "violated", "safety", false, replayed(graph.system, way));
  });
}

function livenessOf(graph) {
  if (!graph.complete) return LEADS_TO.map((name) => new Finding(name, "unknown"));
  const first = new Map(), stuck = new Set();
  for (const component of componentsOf(graph)) {
    const judgment = judged(graph, component), name = owedIn(graph.states.at(component.members[0]), component.waiter);
    const key = `${name} ${component.waiter} ${judgment.kind} ${judgment.expected}`;
    if (!first.has(key)) first.set(key, [name, judgment]);
    stuck.add(`${name} ${component.waiter} ${judgment.page}`);
  }
  const begun = begunIn(graph), passing = transients(graph, stuck);
  return LEADS_TO.flatMap((name) => {
    const mine = [...first.values()].filter(([owed]) => owed === name).map(([, some]) => storyOf(graph, name, some));
    mine.push(...passing.filter((finding) => finding.name === name));
    return mine.length ? sorted(mine, (f) => [f.expected, f.rank]) : [new Finding(name, "holds", null, false, [], [], null, null,
      !begun.has(name))];
  });
}

/** The leads-to property of what an actor has begun in a state. */
function owedIn(state, t) {
  return leads_to(W[t * SECTIONS.who.length + SECTIONS.who.indexOf("kind")], fieldOf(state, "actor", t, "op"));
}

/** The finding of a component: a shortest, calmest way to it, a way around in it, and its wait in words. */
function storyOf(graph, property, some) {
  const { component, t } = some, entry = component.members[0];
  const around = cycleThrough(graph, component, some.kind === "livelock" ? [some.releasing, some.taking] : []);
  const stem = calmestPath(graph, entry, around.length ? around[0] >> 16 : null);
  const steps = replayed(graph.system, [...stem, ...around]);
  const wait = waitOf(graph, some), who_ = name(graph.states.at(entry), t);
  const named = some.taken ? [PAGE] : obstacle_names(some.named);
  return new Finding(property, "violated", some.kind, some.expected, steps.slice(0, stem.length), steps.slice(stem.length),
    wait, t, false, who_, entry, named, claimOf(some), some.kind === "livelock" && DESIGN !== "s390" && canEnd(graph, component));
}

const claimOf = (some) => new Claim(some.t, some.kind, some.page, some.whole, some.taken ? [PAGE] : obstacle_names(some.named));

function waitOf(graph, some) {
  const { members } = some.component, entry = graph.states.at(members[0]), claim = claimOf(some);
  if (some.kind === "fatal") return dead(entry, claim.waiter, claim.page);
  let wait;
  if (LASTING.includes(some.kind)) {
    wait = in_words(entry, claim.waiter, claim.bits, claim.page, claim.whole, undefined, true);
  } else {
    const every_ = Math.max(1, Math.floor(members.length / MANY));
    const states = members.filter((_, n) => n % every_ === 0).map((n) => graph.states.at(n));
    wait = livelock(entry, claim, holders_of(states, claim), some.takers, some.releases);
  }
  wait.expected = some.expected;
  return wait;
}

/** The leads-to properties of which something is pending in some state: a step of the breadth-first tree began it. */
function begunIn(graph) {
  const made = new Set(), { parent, by, pending } = graph;
  for (let n = 1; n < graph.states.count; n++) {
    const t = by.values[n] >> 16;
    if (!((pending.values[n] & ~pending.values[parent.values[n]]) >> t & 1)) continue;
    made.add(leads_to(graph.system.kinds[t], graph.system.choices[t][by.values[n] & 0xffff]?.[0] ?? 0));
  }
  return made;
}

/** Per vCPU the first stall of its accesses, and that of its unshares. stuck: waits that may never end. */
function transients(graph, stuck) {
  const first = new Map();
  for (const met of graph.met.values()) {
    const obstacle = OBSTACLE_OF.get(met.outcome) ?? 0, at = `${met.t} ${met.second}`;
    if (obstacle <= 1 || stuck.has(`${LEADS_TO[met.second]} ${met.t} ${met.page}`)) continue;
    const rank = [met.number, met.code];
    if (!first.has(at) || order(rank, first.get(at).rank) < 0) first.set(at, { rank, obstacle, ...met });
  }
  const places = range(nActors).flatMap((t) => [`${t} 0`, `${t} 1`]).filter((at) => first.has(at));
  return places.map((at) => transient(graph, first.get(at)));
}

function transient(graph, { number, t, obstacle }) {
  const steps = replayed(graph.system, calmestPath(graph, number, t)), state = graph.states.at(number);
  const whole = fieldOf(state, "task", t, "pc") === K.SPLIT, page = waited_page(state, t);
  return new Finding(owedIn(state, t), "holds", "transient", false, steps, [], in_words(state, t, obstacle, page, whole), t,
    false, name(state, t), number, [OBSTACLES[bitLength(obstacle) - 1]]);
}

/** A state's sections as lists of records, as check/verdicts/replay.py keeps them. */
function sectionsOf(state) {
  return Object.entries(PLACES).map(([section, { base, n }]) => {
    const size = SECTIONS[section].length;
    return range(n).map((i) => [...state.subarray(base + i * size, base + (i + 1) * size)]);
  });
}

/** The steps of a way (actor << 16 | choice) from the first state, each with the state before and after it. */
function replayed(system, way) {
  const state = system.state.slice();
  return way.map((by) => {
    const t = by >> 16, pc = fieldOf(state, "task", t, "pc"), idle = pc === IDLE_PC[system.kinds[t]];
    const [op, choice] = idle ? system.choices[t][by & 0xffff] : [0, 0];
    const page = focus(state, t, choice), was = fieldOf(state, "uv", page, "state"), before = sectionsOf(state);
    const outcome = step(state, t, op, choice), wrong = broken(state, t, pc, page, was, outcome);
    if (outcome < 0) throw new Error(`a step of the story is refused: ${RULES.get(pc).name}`);
    return { by, actor: t, kind: KIND_NAMES[system.kinds[t]], rule: RULES.get(pc).name, op: OPS[op], page, outcome,
      outcome_word: OUTCOMES[outcome], broke: wrong, before, after: sectionsOf(state), state: state.slice() };
  });
}

/** What a verdict is about: check/verdicts/scope.py's scope_of. */
function scopeOf(story, policy) {
  const actors = new Map(), orders = {}, faults = [], { memory, known } = story;
  for (const order of memory.folios) orders[order] = (orders[order] ?? 0) + 1;
  if (memory.refuses.length) faults.push(`the ultravisor refuses every call for page ${memory.refuses.join(", ")}`);
  for (const [kind, fields] of story.actors) {
    setdefault(actors, KIND_NAMES[kind], []).push(fields.starts === K.ENDLESS ? "endless" : fields.starts);
    if (fields.completes === false) faults.push(`the I/O of a ${KIND_NAMES[kind]} never completes`);
    if (kind === K.TAMPER) faults.push("a hostile host changes a byte");
  }
  const variants = Object.keys(known.variants).filter((variant) => policy[known.variants[variant]]);
  return new Map(Object.entries({ orders: new Map(Object.entries(orders)), actors, variants: sorted(variants),
    faults: [...new Set(faults)], assumes: STEPS }));
}
