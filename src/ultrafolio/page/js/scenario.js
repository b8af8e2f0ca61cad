// A scenario from its tables, checked as model/scenario.py checks it; DESIGNS comes from the model.

/** The values of a table, defaults filled in. Refused for an unknown field, a missing one, or a wrong value. */
function taken(table, where, fields, lines) {
  if (typeof table !== "object" || Array.isArray(table)) throw new Refused(`${where} is not a table`, lines.get(where));
  const values = {};
  for (const name of Object.keys(table)) {
    if (!Object.hasOwn(fields, name)) {
      throw new Refused(`${where}: no field ${name}; there are ${Object.keys(fields).join(", ")}`,
        lines.get(`${where} ${name}`));
    }
  }
  for (const [name, field] of Object.entries(fields)) {
    if (name in table) values[name] = allowedValue(table[name], `${where} ${name}`, field, lines);
    else if (field.needed) throw new Refused(`${where}: ${name} is missing`, lines.get(where));
    else values[name] = structuredClone(field.default);
  }
  return values;
}

function allowedValue(value, where, field, lines) {
  const whole = (v) => Number.isInteger(v) && v >= field.low && v <= field.high;
  const fits = {
    int: () => whole(value), ints: () => Array.isArray(value) && value.every(whole), bool: () => typeof value === "boolean",
    text: () => typeof value === "string", choice: () => field.choices.includes(value),
    texts: () => Array.isArray(value) && value.every((v) => typeof v === "string"), table: () => typeof value === "object",
  }[field.kind];
  if (fits()) return value;
  const number = `from ${field.low} to ${field.high}`;
  const allowed = { int: `a whole number ${number}`, ints: `a list of whole numbers ${number}`, bool: "true or false",
    choice: field.choices?.join(", "), text: "a text in double quotes", texts: "a list of texts", table: "a table" };
  throw new Refused(`${where} is ${JSON.stringify(value)}; allowed: ${allowed[field.kind]}`, lines.get(where));
}

/** The scenario in a text: {title, design, machine, memory, features, actors: [[kind, fields]], tables}, and as `known`
 * the tables of its design. Refused otherwise. */
function readScenario(text) {
  const { document, lines } = readToml(text), known = knownOf(document, lines);
  for (const name of Object.keys(document)) {
    if (TOP.includes(name) || Object.hasOwn(known.actors, name)) continue;
    const line = lines.get(`[${name}]`) ?? lines.get(`[[${name}]] number 1`);
    throw new Refused(`there is no [${name}] in the design ${known.name}`, line);
  }
  const story = { title: document.title ?? "", tables: document.policy ?? {}, actors: [], lines, known, design: known.name,
    machine: document.machine || known.machines[0] };
  if (typeof story.title !== "string") throw new Refused("title is no text", lines.get("title"));
  if (!document.memory) throw new Refused("there is no [memory]");
  story.memory = taken(document.memory, "[memory]", known.memory, lines);
  story.features = taken(document.features ?? {}, "[features]", known.features, lines);
  known.kinds.forEach((name, kind) => {
    if (!Array.isArray(document[name] ?? [])) throw new Refused(`[${name}] needs two brackets`, lines.get(`[${name}]`));
    (document[name] ?? []).forEach((table, n) => {
      story.actors.push([kind, taken(table, `[[${name}]] number ${n + 1}`, known.actors[name], lines)]);
    });
  });
  if (!story.actors.length) throw new Refused("nobody acts");
  if (story.actors.length > MOST_ACTORS) throw new Refused(`more than ${MOST_ACTORS} actors`);
  fitTogether(story);
  return story;
}

/** The tables of the design that a document names. Refused for a design or a machine that there is not. */
function knownOf(document, lines) {
  const one = (name, value, all) => {
    if (all.includes(value)) return value;
    throw new Refused(`${name} is ${JSON.stringify(value)}; allowed: ${all.join(", ")}`, lines.get(name));
  };
  const name = one("design", document.design ?? Object.keys(DESIGNS)[0], Object.keys(DESIGNS)), known = DESIGNS[name];
  if (document.machine !== "" && "machine" in document) one("machine", document.machine, known.machines);
  return { name, ...known };
}

/** Page numbers, states and owners that fit together, or Refused. */
function fitTogether(story) {
  const { memory, lines, known } = story;
  let pages = 0;
  for (const order of memory.folios) {
    if (pages % (1 << order)) throw new Refused("larger folios come first", lines.get("[memory] folios"));
    pages += 1 << order;
  }
  story.pages = pages;
  for (const name of ["state", "owner"]) {
    if (memory[name] && memory[name].length !== 1 && memory[name].length !== pages) {
      throw new Refused(`[memory] ${name}: one value, or one for each page, in all ${pages}`, lines.get(`[memory] ${name}`));
    }
  }
  for (const word of memory.state) {
    if (!known.states.includes(word)) {
      throw new Refused(`no state of a page: ${word}; there are ${known.states.join(", ")}`, lines.get("[memory] state"));
    }
  }
  story.after = afterWhom(story);
  const used = MEMORY_LISTS.flatMap((name) => memory[name] ?? []);
  for (const [, actor] of story.actors) {
    for (const name of LISTS) {
      const value = actor[name] ?? [];
      used.push(...(Array.isArray(value) ? value : [value + (actor.pages ?? 1) - 1]));
    }
  }
  const wrong = used.find((page) => page >= pages);
  if (wrong !== undefined) throw new Refused(`page ${wrong} does not exist; there are 0 to ${pages - 1}`);
}

/** Per actor the number, plus 1, of the one that it comes after; 0 for none. */
function afterWhom({ actors, lines, known }) {
  const names = new Map(), seen = new Map(), where = [];
  actors.forEach(([kind], t) => {
    const word = known.kinds[kind], n = seen.get(word) ?? 0;
    seen.set(word, n + 1);
    if (!n) names.set(word, t);
    names.set(`${word} ${n}`, t);
    where.push(lines.get(`[[${word}]] number ${n + 1} after`));
  });
  const made = actors.map(([, actor], t) => {
    if (actor.after && (names.get(actor.after) ?? t) === t) throw new Refused(`no other actor: ${actor.after}`, where[t]);
    return actor.after ? names.get(actor.after) + 1 : 0;
  });
  made.forEach((_, t) => {
    let here = t;
    for (let n = 0; made[here]; n++, here = made[here] - 1) {
      if (n > made.length) throw new Refused("these actors come after each other in a circle", where[t]);
    }
  });
  return made;
}

/** The policy of this name, a [policy.NAME] of the text or one of its design's, as numbers of cfg. Refused otherwise. */
function policyOf(name, { tables, known, lines, machine }) {
  const table = Object.hasOwn(tables, name) && tables[name], made = table ? policyIn(table, name, known, lines) : codesOf(known, presetOf(known, name));
  const choices = known.policy.convert?.choices;
  if (choices && choices[made.convert] === "by-guest" && !known.turns[known.machines.indexOf(machine)]) {
    throw new InputError("a policy of the design that this machine does not support", machine,
      known.machines.filter((_, n) => known.turns[n]).join(", "),
      "the policy says convert = by-guest: the guest converts by itself");
  }
  return made;
}

/** The name of a policy of a design. Refused for any other. */
function presetOf(known, name, what = "policy") {
  if (Object.hasOwn(known.policies, name)) return name;
  const other = Object.keys(DESIGNS).find((design) => Object.hasOwn(DESIGNS[design].policies, name));
  throw new Refused(other ? `${name} is a policy of the design ${other}; the scenario is one of ${known.name}`
    : `no ${what}: ${name}; there are ${Object.keys(known.policies).join(", ")}`);
}

/** The policy of a [policy.NAME] table. */
function policyIn(table, name, known, lines) {
  if (Object.values(DESIGNS).some(({ policies }) => Object.hasOwn(policies, name))) {
    throw new Refused(`[policy.${name}]: a preset or a kernel has this name`);
  }
  const values = taken(table, `[policy.${name}]`, known.policy, lines), { variants } = known;
  const made = codesOf(known, presetOf(known, table.base ?? Object.values(DESIGNS)[0].policy.base.default, "base"));
  for (const [field, value] of Object.entries(values)) {
    if (value === null || field === "base") continue;
    if (field === "variants") {
      for (const code of Object.values(variants)) made[code] = 0;
      for (const variant of value) {
        if (!Object.hasOwn(variants, variant)) throw new Refused(`no variant: ${variant}; there are ${Object.keys(variants).join(", ")}`);
        made[variants[variant]] = 1;
      }
    } else made[field] = known.policy[field].choices?.indexOf(value) ?? value;
  }
  return made;
}

/** A policy of the model as {choice: number}. */
const codesOf = ({ codes, policies }, name) => Object.fromEntries(codes.map((choice, n) => [choice, policies[name][n]]));
