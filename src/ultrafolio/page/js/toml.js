// The text of a scenario, line by line: tables, and values that TOML and JSON write alike.

/** What is wrong with a text, in words, and at which line (from 0) where that is known. */
class Refused extends Error {
  constructor(words, line = -1) {
    super(words);
    this.line = line;
  }
}

/** What a translated function refuses: errors.InputError in one line. */
class InputError extends Refused {
  constructor(what, value, allowed, cause, then) {
    const said = typeof value === "string" ? value : JSON.stringify(value);
    super([`${what}: ${said}`, `allowed: ${allowed}`, cause, then && `see ${then}`].filter(Boolean).join("; "));
  }
}

const KEY = String.raw`[A-Za-z0-9_-]+|"[^"\\]*"`;
const bare = (key) => key.replace(/^"|"$/g, "");

/** A value: a number, true, false, a text in double quotes, or a list of such. Refused otherwise. */
function valueOf(text, line) {
  try {
    return JSON.parse(text.trim().replace(/,\s*\]$/, "]"));
  } catch {
    throw new Refused(`not a value: ${text.trim()}; a number, true, false, a text in double quotes, or a list`, line);
  }
}

/** A line without its comment. */
const uncommented = (line) => line.match(/^(?:[^"#]|"(?:[^"\\]|\\.)*")*/)[0].trim();

/** The tables of a text, and the line on which each table and field stands: {document, lines}. */
function readToml(text) {
  const document = Object.create(null), lines = new Map();
  let table = document, where = "";
  text.split("\n").forEach((given, number) => {
    const line = uncommented(given);
    if (!line) return;
    let found = line.match(new RegExp(`^\\[\\[(${KEY})\\]\\]$`));
    if (found) {
      const all = (document[bare(found[1])] ??= []);
      if (!Array.isArray(all)) throw new Refused(`${found[1]} is one table already`, number);
      all.push((table = Object.create(null)));
      where = `[[${bare(found[1])}]] number ${all.length}`;
      return lines.set(where, number);
    }
    if ((found = line.match(new RegExp(`^\\[(${KEY})(?:\\.(${KEY}))?\\]$`)))) {
      const [, outer, inner] = found;
      let parent = document;
      if (inner) parent = document[bare(outer)] ??= Object.create(null);
      const name = bare(inner ?? outer);
      if (Array.isArray(parent) || name in parent) throw new Refused(`a second [${name}]`, number);
      table = parent[name] = Object.create(null);
      where = `[${line.slice(1, -1)}]`;
      return lines.set(where, number);
    }
    if (!(found = line.match(new RegExp(`^(${KEY})\\s*=(.*)$`)))) {
      throw new Refused(`neither [table], [[table]] nor NAME = VALUE: ${line}`, number);
    }
    const name = bare(found[1]);
    if (name in table) throw new Refused(`a second ${name}`, number);
    table[name] = valueOf(found[2], number);
    lines.set(`${where} ${name}`.trim(), number);
  });
  return { document, lines };
}
