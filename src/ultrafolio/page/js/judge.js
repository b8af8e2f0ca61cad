// The class of a component, and what it is named after: check/verdicts/components.py over this page's graph.

/** {kind, expected, page, whole, named, met, taken, takers, releases, taking, releasing} of a component. */
function judged(graph, component) {
  const { waiter: t, members } = component, entry = graph.states.at(members[0]), page = waited_page(entry, t);
  const around = edgesAround(graph, members);
  const [met, whole] = metIn(graph, members, t);
  const made = { component, t, page, whole, met, expected: false, named: 0, taken: false, takers: [], releases: [],
    taking: new Set(), releasing: new Set() };
  if (is_dead(entry, t)) return { ...made, kind: "fatal" };
  const standing = (number) => present(graph.states.at(number), t, page, whole);
  let staying = 0;
  for (const bit of bits(met)) {
    const always = members.every((n) => standing(n) & bit);
    if (always && !around.some((edge) => edge.fair && !(standing(edge.target) & bit))) staying |= bit;
  }
  made.expected = unshares(entry, t) && members.every((n) => pinsOn(graph.states.at(n), page) > 0);
  if (staying) return { ...made, kind: atTheVmm(graph, made, staying) ? "vmm-bound" : "permanent", named: staying };
  const away = takenAway(graph, around, entry, t, page);
  made.named = met && !away ? last(met) : 0;
  const [taking, releasing] = away ?? turns(graph, around, made, standing);
  const steps = (edges) => stepsOf(graph, edges);
  return { ...made, kind: "livelock", taken: Boolean(away), takers: steps(taking), releases: steps(releasing),
    taking: new Set(taking.map((edge) => edge.e)), releasing: new Set(releasing.map((edge) => edge.e)) };
}

/** The edges that leave the members, each with whether its step is fair and whether it stays inside. */
function edgesAround(graph, members) {
  const within = new Set(members);
  return members.flatMap((source) => edgesOf(graph, source).map((e) => {
    const by = graph.via.values[e] >> 16, target = graph.to.values[e];
    return { e, source, target, by, fair: Boolean((graph.enabled.values[source] >> by) & 1), inside: within.has(target) };
  }));
}

const pinsOn = (state, page) => fieldOf(state, "mm", page, "pins") + fieldOf(state, "mm", page, "longs");

/** Whether the next step of an actor is one that the VMM may take and need not. */
const isTheVmms = (state, a) => ruleAt(state, a)?.actor === "vmm" && !ruleAt(state, a).fair;

/** Whether an actor holds a named obstacle in every state, each that does stands at a step that the VMM may take and need
 * not, and the waiter drains the batches that do. */
function atTheVmm(graph, { component: { members }, t, page, whole }, named) {
  const everywhere = (test) => members.every((number) => test(graph.states.at(number)));
  const held = range(nActors).filter((a) => a !== t && everywhere((s) => contributes(s, a, t, page, whole) & named));
  if (!held.length || !held.every((a) => everywhere((s) => isTheVmms(s, a)))) return false;
  if (drains(graph.states.at(members[0])) || !(named & K.OB_REFS)) return true;
  const cpus = range(nActors).map((a) => W[a * SECTIONS.who.length + SECTIONS.who.indexOf("cpu")]);
  return !cpus.some((cpu) => everywhere((s) => batch_has(s, t, page, whole, cpu)));
}

/** The obstacles that refuse the waiter's steps in the component, and whether a split met its references. */
function metIn(graph, members, t) {
  let found = 0, split = false;
  for (const number of members) {
    const trial = graph.states.at(number).slice(), pc = fieldOf(trial, "task", t, "pc"), outcome = step(trial, t, 0, 0);
    found |= OBSTACLE_OF.get(outcome) ?? 0;
    split ||= pc === K.SPLIT && outcome > 0;
  }
  return [found, split && (found & K.OB_REFS) !== 0];
}

/** The edges that take the page away, and those that import it; null where there are not both. */
function takenAway(graph, around, entry, t, page) {
  if (!is_vcpu(entry, t)) return null;
  const vm = W[t * SECTIONS.who.length + SECTIONS.who.indexOf("vm")];
  const seen = (number) => hw_guest(graph.states.at(number), vm, page) === K.ALLOWED;
  const imports = ({ source, target, by }) => {
    const [before, after] = [source, target].map((number) => graph.states.at(number));
    return fieldOf(before, "task", by, "pc") === K.IMPORT_CALL && fieldOf(before, "task", by, "page") === page &&
      fieldOf(after, "task", by, "pc") === K.IMPORT_END;
  };
  const inside = around.filter((edge) => edge.inside);
  const away = inside.filter((edge) => seen(edge.source) && !seen(edge.target)), imported = inside.filter(imports);
  return away.length && imported.length ? [away, imported] : null;
}

/** The edges within the component that take the obstacle, and those that remove it. */
function turns(graph, around, { t, page, whole, named }, standing) {
  const here = (edge) => (standing(edge.source) & named) > 0, there = (edge) => (standing(edge.target) & named) > 0;
  const inside = around.filter((edge) => edge.inside);
  const taken = inside.filter((edge) => !here(edge) && there(edge)), freed = inside.filter((edge) => here(edge) && !there(edge));
  if (taken.length && freed.length) return [taken, freed];
  const [took, gave] = [new Set(taken), new Set(freed)];
  // it is there in every state: several hold it in turn
  const held = (number, a) => (a === t ? 0 : contributes(graph.states.at(number), a, t, page, whole) & named);
  const batched = (number) => (named === K.OB_REFS ? batches_of(graph.states.at(number), t, page, whole) : 0);
  const more = inside.filter((edge) => took.has(edge) || held(edge.source, edge.by) < held(edge.target, edge.by) ||
    batched(edge.source) < batched(edge.target));
  const less = inside.filter((edge) => gave.has(edge) || held(edge.source, edge.by) > held(edge.target, edge.by) ||
    batched(edge.source) > batched(edge.target));
  if (more.length && less.length) return [more, less];
  // nothing in it removes the obstacle: a fair step that would is enabled, and disabled again
  const could = new Set(around.filter((edge) => edge.fair && here(edge) && !there(edge)).map((edge) => edge.source));
  return [inside.filter((edge) => could.has(edge.source) && !could.has(edge.target)),
    inside.filter((edge) => could.has(edge.target))];
}

/** Edges as [actor, rule], each once. */
function stepsOf(graph, edges) {
  const found = new Map();
  for (const { source, by } of edges) {
    const rule = ruleAt(graph.states.at(source), by).name;
    found.set(`${by} ${rule}`, [by, rule]);
  }
  return sorted(found.values());
}
