// Ways through a graph: the calmest of the shortest, fair closed ones, and where a fair run can stay for ever.

const edgesOf = (graph, number) => range(graph.first.values[number], graph.first.values[number + 1]);

/** A shortest way to a state with the fewest changes of actor, as check/verdicts/minimise.py chooses it; `then`: the actor of
 * the step that follows, or null. */
function calmestPath(graph, target, then) {
  const actors = nActors, last = range(actors).map((t) => (then !== null && t !== then ? 1 : 0));
  let goals = new Map([[target, last]]);
  const layers = [{ left: goals }];
  for (const [from, end] of depthsBefore(graph, target).reverse()) {
    const edges = new Map(), left = new Map();
    for (let number = from; number < end; number++) {
      for (const e of edgesOf(graph, number)) {
        const goal = goals.get(graph.to.values[e]), actor = graph.via.values[e] >> 16;
        if (!goal) continue;
        if (!left.has(number)) left.set(number, range(actors).map(() => 1 << 30)), edges.set(number, []);
        edges.get(number).push(e);
        left.get(number)[actor] = Math.min(left.get(number)[actor], goal[actor]);
      }
    }
    for (const own of left.values()) {
      const least = Math.min(...own) + 1;
      own.forEach((n, t) => (own[t] = Math.min(n, least)));
    }
    layers.push({ edges, left });
    goals = left;
  }
  return forwards(graph, layers.reverse());
}

/** [first, end) of the states of every depth before the target's. */
function depthsBefore(graph, target) {
  const bounds = [], parent = graph.parent.values, count = graph.states.count;
  for (let from = 0, end = 1; end <= target;) {
    bounds.push([from, end]);
    let next = end;
    while (next < count && parent[next] < end) next++;
    [from, end] = [end, next];
  }
  return bounds;
}

function forwards(graph, layers) {
  const path = [];
  let at = 0, last = -1;
  for (let n = 0; n + 1 < layers.length; n++) {
    const { left } = layers[n + 1], { via, to } = graph;
    const cost = (e) => left.get(to.values[e])[via.values[e] >> 16] + Number(last >= 0 && via.values[e] >> 16 !== last);
    const best = layers[n].edges.get(at).reduce((a, b) => (cost(b) < cost(a) ? b : a));
    path.push(via.values[best]);
    [at, last] = [to.values[best], via.values[best] >> 16];
  }
  return path;
}

/** The actors that stand at a strongly fair rule in a state, a bit each. */
function sleepers(graph, number) {
  const state = graph.states.at(number);
  return range(nActors).reduce((found, t) => {
    return ruleAt(state, t)?.fairness === "strong" ? found | (1 << t) : found;
  }, 0);
}

/** Every component in which an actor waits and a fair run can stay for ever, by entry, then by actor. */
function componentsOf(graph) {
  const made = range(nActors).flatMap((waiter) => fairComponents(graph, waiter).map((members) => ({ waiter, members })));
  return made.sort((a, b) => a.members[0] - b.members[0] || a.waiter - b.waiter);
}

/** Streett's condition by decomposition, as check/verdicts/liveness.py has it. */
function fairComponents(graph, actor) {
  const count = graph.states.count, inside = new Uint8Array(count), fair = [];
  for (let n = 0; n < count; n++) inside[n] = (graph.pending.values[n] >> actor) & 1;
  while (inside.includes(1)) {
    for (const [members, starved] of componentsIn(graph, inside)) {
      if (starved) for (const n of members) inside[n] = graph.enabled.values[n] & starved ? 0 : 1;
      else fair.push(members);
    }
  }
  return fair;
}

/** Whether fair steps alone lead from a component to a state in which its waiter does not wait: liveness.can_end. */
function canEnd(graph, { waiter, members }) {
  const seen = new Set(members), { via, to, pending, enabled } = graph;
  for (const here of seen) {
    for (const e of edgesOf(graph, here)) {
      const target = to.values[e];
      if (!((enabled.values[here] >> (via.values[e] >> 16)) & 1) || seen.has(target)) continue;
      if (!((pending.values[target] >> waiter) & 1)) return true;
      seen.add(target);
    }
  }
  return false;
}

/** The components of the states `inside` that are fair to weakly fair steps, each with the actors whose strongly fair
 * step it starves. `inside` is emptied. */
function componentsIn(graph, inside) {
  const count = graph.states.count, scc = new Int32Array(count).fill(-1);
  const [first, to, via, enabled] = [graph.first.values, graph.to.values, graph.via.values, graph.enabled.values];
  const scratch = range(6).map(() => new Int32Array(count + 1));
  const found = components(first, to, inside, count, ...scratch, scc);
  inside.fill(0);
  const always = new Int32Array(found).fill(-1), [ever, taken, inner] = range(3).map(() => new Int32Array(found));
  fairness(first, to, via, scc, enabled, count, always, ever, taken, inner);
  const members = range(found).map(() => []);
  for (let n = 0; n < count; n++) if (scc[n] >= 0) members[scc[n]].push(n);
  const made = [];
  for (let c = 0; c < found; c++) {
    const fair = inner[c] > 0 ? (always[c] & ~taken[c]) === 0 : always[c] === 0, idle = ever[c] & ~taken[c];
    if (fair) made.push([members[c], idle ? idle & sleepers(graph, members[c][0]) : 0]);
  }
  return made;
}

/** A fair closed way from the component's first state; `wanted`: sets of edges, of each of which it takes one. */
function cycleThrough(graph, component, wanted) {
  const entry = component.members[0], members = new Set(component.members);
  let way = shortestFair(graph, entry, members);
  if (!way.length) return [];
  let passed = edgesAlong(graph, entry, way);
  for (const some of wanted) {
    if (some.size && !passed.some((e) => some.has(e))) {
      way = way.concat(roundTrip(graph, entry, members, some));
      passed = edgesAlong(graph, entry, way);
    }
  }
  return fed(graph, entry, members, way);
}

/** The closed way with a way around for each sleeper that is enabled on it and never steps. */
function fed(graph, entry, members, way) {
  const asleep = sleepers(graph, entry);
  for (;;) {
    const edges = edgesAlong(graph, entry, way), states = [entry, ...edges.map((e) => graph.to.values[e])];
    const stepped = new Set(edges.map((e) => graph.via.values[e] >> 16));
    const enabled = states.reduce((found, n) => found | graph.enabled.values[n], 0);
    const starved = range(nActors).find((t) => asleep & enabled & (1 << t) && !stepped.has(t));
    if (starved === undefined) return way;
    const steps = [...members].flatMap((n) => edgesOf(graph, n)
      .filter((e) => graph.via.values[e] >> 16 === starved && members.has(graph.to.values[e])));
    way = way.concat(roundTrip(graph, entry, members, new Set(steps)));
  }
}

/** The numbers of the edges of a way. */
function edgesAlong(graph, entry, way) {
  let here = entry;
  return way.map((by) => {
    const edge = edgesOf(graph, here).find((e) => graph.via.values[e] === by);
    here = graph.to.values[edge];
    return edge;
  });
}

function roundTrip(graph, entry, members, wanted) {
  const [out, at] = shortestWithin(graph, entry, members, wanted, entry);
  return out.concat(shortestWithin(graph, at, members, null, entry)[0]);
}

/** The shortest way within `members` that ends with a wanted edge (null: at `end`), and where it ends. */
function shortestWithin(graph, start, members, wanted, end) {
  if (!wanted && start === end) return [[], start];
  const came = new Map([[start, null]]), queue = [start];
  for (let here of queue) {
    for (const e of edgesOf(graph, here)) {
      const target = graph.to.values[e], by = graph.via.values[e];
      if (!members.has(target)) continue;
      if (wanted ? wanted.has(e) : target === end) {
        const steps = [by];
        for (; came.get(here); [here] = came.get(here)) steps.push(came.get(here)[1]);
        return [steps.reverse(), target];
      }
      if (!came.has(target)) came.set(target, [here, by]), queue.push(target);
    }
  }
  throw new Error("a component that is not strongly connected");
}

/** The shortest closed way from `entry` within `members` that is fair; empty to rest. Breadth-first over (state, actors
 * still owed, sleepers that stepped). */
function shortestFair(graph, entry, members) {
  const asleep = sleepers(graph, entry), owed = graph.enabled.values[entry];
  if (!owed && !edgesOf(graph, entry).some((e) => members.has(graph.to.values[e]))) return [];
  const came = new Map([[`${entry} ${owed} 0`, null]]), queue = [[entry, owed, 0]];
  for (const here of queue) {
    for (const e of edgesOf(graph, here[0])) {
      const target = graph.to.values[e], by = graph.via.values[e], actor = 1 << (by >> 16);
      if (!members.has(target)) continue;
      const stepped = here[2] | (asleep & actor), enabled = graph.enabled.values[target];
      const left = ((here[1] & (enabled | asleep)) | (enabled & asleep)) & ~stepped & ~actor;
      if (target === entry && left === 0) {
        const steps = [by];
        for (let at = here; came.get(at.join(" ")); [at] = came.get(at.join(" "))) steps.push(came.get(at.join(" "))[1]);
        return steps.reverse();
      }
      const key = `${target} ${left} ${stepped}`;
      if (!came.has(key)) came.set(key, [here, by]), queue.push([target, left, stepped]);
    }
  }
  throw new Error("a fair component without a fair cycle");
}
