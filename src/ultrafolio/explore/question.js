"use strict";
// A question about a state's fields, for a file that has no server to ask. Grammar and meaning are those of expression.py.

/** The expression as a function of a state shaped as `shape` is; Refusal names the column and what is allowed. */
function compile(meta, text, shape) {
  const tokens = [...text.matchAll(/\s*(?:(\d+)|([A-Za-z_]\w*)|(==|!=|<=|>=|[-<>+*()[\].])|(\S))/g)]
    .map((m) => ({ number: m[1], name: m[2], sign: m[3], text: m[1] || m[2] || m[3] || m[4], at: m.index + m[0].length - (m[1] || m[2] || m[3] || m[4]).length }));
  let next = 0;
  const wrong = (token, what, allowed) => new Refusal(`expression, column ${(token ? token.at : text.length) + 1}: ${what}\n  allowed  ${allowed || meta.allowed}`);
  const is = (word) => tokens[next] && !tokens[next].number && tokens[next].text === word;
  const take = (word) => { if (!is(word)) throw wrong(tokens[next], `${word} is missing`); return tokens[next++]; };
  function atom() {
    const token = tokens[next++];
    if (!token) throw wrong(null, "something is missing");
    if (token.number) return () => Number(token.number);
    if (token.text === "(") { const inner = or(); take(")"); return inner; }
    if (token.text === "-") { const inner = atom(); return (s) => -inner(s); }
    if (!token.name) throw wrong(token, `'${token.text}' is not allowed`);
    if (!is("[")) {
      if (!Object.hasOwn(meta.constants, token.name)) throw wrong(token, `'${token.name}' is no constant`);
      return () => meta.constants[token.name];
    }
    if (!Object.hasOwn(meta.sections, token.name)) throw wrong(token, `no section '${token.name}'`, Object.keys(meta.sections).join(", "));
    take("[");
    const row = tokens[next++], size = shape[token.name].length;
    if (!row || !row.number || Number(row.number) >= size) throw wrong(row, `no ${token.name}[${row ? row.text : ""}]`, `0 to ${size - 1}`);
    take("]"); take(".");
    const field = tokens[next++], fields = meta.sections[token.name];
    if (!field || !fields.includes(field.text)) throw wrong(field, `no field '${field ? field.text : ""}' in ${token.name}`, fields.join(", "));
    const column = fields.indexOf(field.text);
    return (s) => s[token.name][Number(row.number)][column];
  }
  const fold = (part, signs) => () => {
    let left = part();
    while (signs.some(([sign]) => is(sign))) {
      const [, calculate] = signs.find(([sign]) => is(sign)), a = left;
      next++;
      const b = part();
      left = (s) => calculate(a(s), b(s));
    }
    return left;
  };
  const product = fold(atom, [["*", (a, b) => a * b]]);
  const sum = fold(product, [["+", (a, b) => a + b], ["-", (a, b) => a - b]]);
  const orders = { "==": (a, b) => a === b, "!=": (a, b) => a !== b, "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b };
  function comparison() {
    const sides = [sum()], tests = [];
    while (tokens[next] && Object.hasOwn(orders, tokens[next].text)) { tests.push(orders[tokens[next++].text]); sides.push(sum()); }
    if (!tests.length) return sides[0];
    return (s) => Number(tests.every((test, i) => test(sides[i](s), sides[i + 1](s))));
  }
  function not() { if (!is("not")) return comparison(); next++; const inner = not(); return (s) => Number(!inner(s)); }
  const and = fold(not, [["and", (a, b) => Number(a && b)]]);
  const or = fold(and, [["or", (a, b) => Number(a || b)]]);
  const whole = or();
  if (next < tokens.length) throw wrong(tokens[next], `'${tokens[next].text}' is not allowed here`);
  return whole;
}
