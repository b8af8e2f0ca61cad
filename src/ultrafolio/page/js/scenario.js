// A scenario from its tables, checked as model/scenario.py checks it; FIELDS_OF and POLICIES come from the model.

/** The values of a table, defaults filled in. Refused for an unknown field, a missing one, or a wrong value. */
function taken(table, where, fields, lines) {
  if (typeof table !== "object" || Array.isArray(table)) throw new Refused(`${where} is not a table`, lines.get(where));
  const values = {};
  for (const name of Object.keys(table)) {
    if (!fields[name]) {
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

/** The scenario in a text: {title, memory, features, actors: [[kind, fields]], tables}. Refused otherwise. */
function readScenario(text) {
  const { document, lines } = readToml(text);
  if (FIELDS_OF.designs[document.design]) {
    throw new OtherDesign(document.design, document.machine || FIELDS_OF.designs[document.design], lines.get("design"));
  }
  for (const name of Object.keys(document)) {
    if (!FIELDS_OF.top[name] && !FIELDS_OF.actors[name]) throw new Refused(`there is no [${name}]`, lines.get(`[${name}]`));
  }
  for (const [name, known] of Object.entries(FIELDS_OF.only)) {
    if (name in document && !known.includes(document[name])) {
      throw new Refused(`${name} is ${JSON.stringify(document[name])}, which this page does not check; allowed: ${known.at(-1)}`,
        lines.get(name));
    }
  }
  const story = { title: document.title ?? "", tables: document.policy ?? {}, actors: [], lines };
  if (typeof story.title !== "string") throw new Refused("title is no text", lines.get("title"));
  if (!document.memory) throw new Refused("there is no [memory]");
  story.memory = taken(document.memory, "[memory]", FIELDS_OF.memory, lines);
  story.features = taken(document.features ?? {}, "[features]", FIELDS_OF.features, lines);
  ACTOR_KINDS.forEach((name, kind) => {
    if (!Array.isArray(document[name] ?? [])) throw new Refused(`[${name}] needs two brackets`, lines.get(`[${name}]`));
    (document[name] ?? []).forEach((table, n) => {
      story.actors.push([kind, taken(table, `[[${name}]] number ${n + 1}`, FIELDS_OF.actors[name], lines)]);
    });
  });
  if (!story.actors.length) throw new Refused("nobody acts");
  if (story.actors.length > MOST_ACTORS) throw new Refused(`more than ${MOST_ACTORS} actors`);
  fitTogether(story);
  return story;
}

/** Page numbers, states and owners that fit together, or Refused. */
function fitTogether(story) {
  const { memory, lines } = story;
  let pages = 0;
  for (const order of memory.folios) {
    if (pages % (1 << order)) throw new Refused("larger folios come first", lines.get("[memory] folios"));
    pages += 1 << order;
  }
  story.pages = pages;
  for (const name of ["state", "owner"]) {
    if (memory[name].length !== 1 && memory[name].length !== pages) {
      throw new Refused(`[memory] ${name}: one value, or one for each page, in all ${pages}`, lines.get(`[memory] ${name}`));
    }
  }
  for (const word of memory.state) {
    if (!FIELDS_OF.states.includes(word)) {
      throw new Refused(`no state of a page: ${word}; there are ${FIELDS_OF.states.join(", ")}`, lines.get("[memory] state"));
    }
  }
  story.after = afterWhom(story);
  const used = [...memory.refuses];
  for (const [, actor] of story.actors) {
    for (const name of FIELDS_OF.lists) {
      const value = actor[name] ?? [];
      used.push(...(Array.isArray(value) ? value : [value + (actor.pages ?? 1) - 1]));
    }
  }
  const wrong = used.find((page) => page >= pages);
  if (wrong !== undefined) throw new Refused(`page ${wrong} does not exist; there are 0 to ${pages - 1}`);
}

/** Per actor the number, plus 1, of the one that it comes after; 0 for none. */
function afterWhom({ actors, lines }) {
  const names = new Map(), seen = new Map(), where = [];
  actors.forEach(([kind], t) => {
    const word = ACTOR_KINDS[kind], n = seen.get(word) ?? 0;
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

/** The policy of this name, a [policy.NAME] of the text or one of the model's, as numbers of cfg. Refused otherwise. */
function policyOf(name, story) {
  const table = story.tables[name];
  if (!table) {
    if (!POLICIES[name]) throw new Refused(`no policy: ${name}; there are ${Object.keys(POLICIES).join(", ")}`);
    return codesOf(name);
  }
  if (POLICIES[name]) throw new Refused(`[policy.${name}]: a preset or a kernel has this name`);
  const values = taken(table, `[policy.${name}]`, FIELDS_OF.policy, story.lines);
  if (!POLICIES[values.base]) throw new Refused(`no base: ${values.base}; there are ${Object.keys(POLICIES).join(", ")}`);
  const made = codesOf(values.base);
  for (const [field, value] of Object.entries(values)) {
    if (value === null || field === "base") continue;
    if (field === "variants") {
      for (const code of Object.values(VARIANTS)) made[code] = 0;
      for (const variant of value) {
        if (!VARIANTS[variant]) throw new Refused(`no variant: ${variant}; there are ${Object.keys(VARIANTS).join(", ")}`);
        made[VARIANTS[variant]] = 1;
      }
    } else made[field] = FIELDS_OF.policy[field].choices?.indexOf(value) ?? value;
  }
  return made;
}

/** A policy of the model as {choice: number}. */
const codesOf = (name) => Object.fromEntries(CODES.map((choice, n) => [choice, POLICIES[name][n]]));
