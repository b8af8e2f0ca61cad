// What translated functions use of Python: truth, order, and the built-in functions that JavaScript lacks.

const list = (values) => [...values];
const len = (value) => value.length ?? value.size;
const set = (values) => new Set(values ?? []);
const map = (f, values) => list(values).map((value) => f(value));
const anyOf = (values) => values.some(truth);
const allOf = (values) => values.every(truth);
const sum = (values) => values.reduce((a, b) => a + Number(b), 0);
const enumerate = (values, first = 0) => list(values).map((value, i) => [i + first, value]);
const zip = (first, ...others) => list(first).map((value, i) => [value, ...others.map((other) => other[i])]);
const dict = (pairs) => Object.fromEntries(pairs);
const bitLength = (n) => 32 - Math.clz32(n);

/** Python's truth: an empty list, text, set or map is false. */
function truth(value) {
  if (value === null || value === undefined) return false;
  if (typeof value === "object") return "length" in value ? value.length > 0 : "size" in value ? value.size > 0 : true;
  return Boolean(value);
}

const both = (value, other) => (truth(value) ? other() : value);
const either = (value, other) => (truth(value) ? value : other());

function range(first, end, step = 1) {
  if (end === undefined) [first, end] = [0, first];
  const made = [];
  for (let i = first; i < end; i += step) made.push(i);
  return made;
}

/** Whether a list, a set, a map or a text contains a value. */
const has = (values, value) => (values.includes ? values.includes(value) : values.has(value));
const get = (values, key, other = null) =>
  (values instanceof Map ? (values.has(key) ? values.get(key) : other) : key in values ? values[key] : other);
const put = (values, key, value) => (values.set ? values.set(key, value) : (values[key] = value));

function setdefault(values, key, value) {
  if (!values.has(key)) values.set(key, value);
  return values.get(key);
}

/** The value at a place of a list, counted from its end where negative; or of a key of a map. */
function item(values, key) {
  if (values instanceof Map) return values.get(key);
  if (values instanceof Column) return Array.isArray(key) ? key.map((at) => item(values, at)) : list(values)[key];
  return typeof key === "number" && key < 0 ? values[values.length + key] : values[key];
}

/** A product, or a list so many times. */
const times = (a, b) => (Array.isArray(a) ? range(b).flatMap(() => a) : a * b);
const plus = (a, b) => (Array.isArray(a) ? a.concat(list(b)) : a + b);

/** Python's order of numbers, texts and lists: below, at or above 0. */
function order(a, b) {
  if (!Array.isArray(a)) return a < b ? -1 : a > b ? 1 : 0;
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const found = order(a[i], b[i]);
    if (found) return found;
  }
  return a.length - b.length;
}

/** numpy's == and != of an array and a number, element by element, and | of two such answers; of other things Python's. */
const equal = (a, b) => (isArray(a) ? list(a).map((value) => same(value, b)) : same(a, b));
const unequal = (a, b) => (isArray(a) ? equal(a, b).map((value) => !value) : !same(a, b));
const union = (a, b) => (isArray(a) ? list(a).map((value, n) => value || b[n]) : a | b);
const isArray = (value) => Array.isArray(value) || value instanceof Column;

/** Python's ==: of lists their values, of true and 1 that they are equal. */
const same = (a, b) => (Array.isArray(a) && Array.isArray(b) ? order(a, b) === 0 : a == b);
const sorted = (values, key = (value) => value) => list(values).sort((a, b) => order(key(a), key(b)));

/** The least of a list, or of two numbers; of equal ones the first. */
function min(values, key = (value) => value) {
  if (typeof values === "number") return Math.min(values, key);
  return list(values).reduce((best, value) => (order(key(value), key(best)) < 0 ? value : best));
}

const max = (a, b) => Math.max(a, b);
/** A number as a format such as ">3" has it. */
const formatted = (value, spec) => String(value).padStart(Number(spec.slice(1)));

/** Words as shlex.join has them. */
const shellWord = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\"'\"'")}'`);
const shellLine = (words) => words.map(shellWord).join(" ");

/** Text in lines of at most 72 columns, as show.paragraph fills it. */
function paragraph(text, indent = "") {
  const lines = [];
  let line = indent, empty = true;
  for (const word of text.split(/(\s+)/).filter((part) => part)) {
    if (/^\s+$/.test(word)) {
      if (!empty) line += " ".repeat(word.length);
      continue;
    }
    if (!empty && line.length + word.length > MAIL) {
      lines.push(line.trimEnd());
      line = indent || "  ";
    }
    line += word;
    empty = false;
  }
  return [...lines, line.trimEnd()].join("\n");
}
