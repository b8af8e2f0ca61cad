"use strict";
// Expressions over a state's fields, for a file without a server. Grammar and meaning: expression.py.

/** The tokens of an expression: {text, at, and number or name if it is one}. */
function words(text) {
  const found = text.matchAll(/\s*(?:(\d+)|([A-Za-z_]\w*)|(==|!=|<=|>=|\S))/g);
  return [...found].map(([whole, number, name, sign], i, all) => {
    const word = number || name || sign;
    return { text: word, number, name, at: all[i].index + whole.length - word.length };
  });
}

const ORDERS = {
  "==": (a, b) => a === b, "!=": (a, b) => a !== b, "<": (a, b) => a < b, "<=": (a, b) => a <= b,
  ">": (a, b) => a > b, ">=": (a, b) => a >= b,
};

/** The expression as a function of a state with the shape of `shape`. Throws Refusal with column and what is allowed. */
function compile(meta, text, shape) {
  const tokens = words(text);
  let next = 0;
  const is = (word) => next < tokens.length && tokens[next].text === word;
  function wrong(token, what, allowed = meta.allowed) {
    return new Refusal(`expression, column ${(token ? token.at : text.length) + 1}: ${what}\n  allowed  ${allowed}`);
  }
  function take(word) {
    if (!is(word)) throw wrong(tokens[next], `${word} is missing`);
    next++;
  }
  function atom() {
    const token = tokens[next++];
    if (!token) throw wrong(null, "something is missing");
    if (token.number) return () => Number(token.number);
    if (token.text === "(") {
      const inner = or();
      take(")");
      return inner;
    }
    if (token.text === "-") {
      const inner = atom();
      return (s) => -inner(s);
    }
    if (!token.name) throw wrong(token, `'${token.text}' is not allowed`);
    if (is("[")) return field(token);
    if (!Object.hasOwn(meta.constants, token.name)) throw wrong(token, `'${token.name}' is no constant`);
    return () => meta.constants[token.name];
  }
  function field({ name: section, at }) {
    const known = Object.keys(meta.sections), text_ = (token) => (token ? token.text : "");
    if (!known.includes(section)) throw wrong({ at }, `no section '${section}'`, known.join(", "));
    take("[");
    const row = tokens[next++], number = Number(row && row.number), last = shape[section].length - 1;
    if (!(number <= last)) throw wrong(row, `no ${section}[${text_(row)}]`, `${section}[0] to ${section}[${last}]`);
    take("]");
    take(".");
    const fields = meta.sections[section], named = tokens[next++], column = fields.indexOf(text_(named));
    if (column < 0) throw wrong(named, `no field '${text_(named)}' in ${section}`, fields.join(", "));
    return (s) => s[section][number][column];
  }
  /** Operands of one kind with operators between them, left-associative. */
  const folded = (part, signs) => () => {
    let left = part();
    while (next < tokens.length && Object.hasOwn(signs, tokens[next].text)) {
      const calculate = signs[tokens[next++].text], a = left, b = part();
      left = (s) => calculate(a(s), b(s));
    }
    return left;
  };
  const product = folded(atom, { "*": (a, b) => a * b });
  const sum = folded(product, { "+": (a, b) => a + b, "-": (a, b) => a - b });
  function comparison() {
    const sides = [sum()], tests = [];
    while (next < tokens.length && Object.hasOwn(ORDERS, tokens[next].text)) {
      tests.push(ORDERS[tokens[next++].text]);
      sides.push(sum());
    }
    if (!tests.length) return sides[0];
    return (s) => Number(tests.every((test, i) => test(sides[i](s), sides[i + 1](s))));
  }
  function not() {
    if (!is("not")) return comparison();
    next++;
    const inner = not();
    return (s) => Number(!inner(s));
  }
  const and = folded(not, { and: (a, b) => Number(a && b) });
  const or = folded(and, { or: (a, b) => Number(a || b) });
  const whole = or();
  if (next < tokens.length) throw wrong(tokens[next], `'${tokens[next].text}' is not allowed here`);
  return whole;
}
