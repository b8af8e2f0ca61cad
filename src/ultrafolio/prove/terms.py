"""Formulas over one state of a system of any size, built once each and simplified as they are built.

A formula is an int, a bool, or a Term. Its leaves are variables (a field of a thread, a constant of the configuration)
and fields of a page or machine at an index. `head` and `end` are the first page of the folio of a page and the page
behind its last one; so no order is ever enumerated.

Every operation has an exact meaning on a state of the interpreter, which evaluate.py computes. What a solver may not
express is weakened only in questions (solver.py).

    var      a variable; flag: one that is true or not lin    constant + sum of coefficient * term
    read     a field at an index, before the step     eq0    lin == 0;  le0: lin <= 0
    head,    the folio of a page, before the step     ite    an integer by condition;  bite: a truth value by condition
    end                                               and, or, not
    first    the first q in [lo, hi) with body(q); max(lo, hi) where there is none
    last     the last q in [lo, hi) with body(q); lo - 1 where there is none
    count    how many q in [lo, hi) have body(q)
    bits     a number with a bit set for each q in [lo, hi) with body(q): bit index(q)
    thread   whether some thread has body
    bit      a bit of a number, 0 or 1;  set, clear: the number with this bit set, or not set
    pair     the even page of a page and its neighbour
    block    the first page of the huge page of a page;  xor: two numbers, bit by bit
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Term:
    """One formula; equal ones are the same object."""

    __slots__ = ("args", "op", "uid")

    def __init__(self, op: str, args: tuple[object, ...], uid: int) -> None:
        self.op, self.args, self.uid = op, args, uid

    def __repr__(self) -> str:
        return f"{self.op}{self.args}"

    def __bool__(self) -> bool:
        raise TypeError(f"the truth of {self} is not known")


Value = int | bool | Term
_POOL: dict[tuple[object, ...], Term] = {}
BOOLEAN = frozenset(("flag", "eq0", "le0", "bite", "and", "or", "not", "thread"))
LOOPS = ("first", "last", "count", "bits")
"""What loops over pages find. Arguments: lo, hi, body; of bits also index, and the number before the loop."""
BOUND = "#q"
"""The name of the page that a loop is at."""
OUTER = "#p"
"""In a loop in a turn of another one: the name of the page that the other one is at."""


def make(op: str, *args: object) -> Term:
    """The one term with this operation and these arguments."""
    key = (op, *args)
    found = _POOL.get(key)
    if found is None:
        found = _POOL[key] = Term(op, args, len(_POOL))
    return found


def var(name: str) -> Term:
    return make("var", name)


def read(field: str, index: Value) -> Term:
    """The field SECTION.NAME at an index, before the step."""
    return make("read", field, _number(index))


def is_truth(value: Value) -> bool:
    """Whether a formula is a truth value, and no integer."""
    return isinstance(value, bool) or (isinstance(value, Term) and value.op in BOOLEAN)


def head(page: Value) -> Value:
    """First page of the folio of `page`, before the step."""
    if isinstance(page, Term) and page.op == "head":
        return page
    return make("head", _number(page))


def end(page: Value) -> Value:
    """The page behind the folio of `page`, before the step."""
    if isinstance(page, Term) and page.op == "head":
        page = page.args[0]  # type: ignore[assignment]
    return make("end", _number(page))


SIZE = make("var", "cfg.size")
"""The pages of a huge page."""


def block(page: Value) -> Value:
    """First page of the huge page of `page`; it never changes."""
    if page == 0 if isinstance(page, int) else isinstance(page, Term) and page.op == "block":
        return page
    return make("block", _number(page))


# ------------------------------------------------------------------------------------------------- integers
def _number(value: Value) -> Value:
    """A truth value as the integer it is in Python."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Term) and value.op in BOOLEAN:
        return ite(value, 1, 0)
    return value


def parts(value: Value) -> tuple[int, dict[Term, int]]:
    """A number as a constant and a coefficient for each other term."""
    value = _number(value)
    if isinstance(value, int):
        return value, {}
    if value.op == "lin":
        return value.args[0], dict(value.args[1])  # type: ignore[call-overload, return-value]
    return 0, {value: 1}


def _lin(constant: int, terms: dict[Term, int]) -> Value:
    left = sorted(((t, c) for t, c in terms.items() if c), key=lambda pair: pair[0].uid)
    if not left:
        return constant
    if constant == 0 and len(left) == 1 and left[0][1] == 1:
        return left[0][0]
    return make("lin", constant, tuple(left))


def plus(a: Value, b: Value, times: int = 1) -> Value:
    """a + times * b."""
    constant, terms = parts(a)
    more, others = parts(b)
    for term, coefficient in others.items():
        terms[term] = terms.get(term, 0) + times * coefficient
    return _lin(constant + times * more, terms)


def minus(a: Value, b: Value) -> Value:
    return plus(a, b, -1)


def ite(condition: Value, a: Value, b: Value) -> Value:
    """The integer `a` where the condition holds, else `b`."""
    if isinstance(condition, bool):
        return _number(a if condition else b)
    a, b = _number(a), _number(b)
    if a is b or (isinstance(a, int) and isinstance(b, int) and a == b):
        return a
    return make("ite", condition, a, b)


# ------------------------------------------------------------------------------------------------- bits
def bit(value: Value, index: Value) -> Value:
    """Bit `index` of a number that is not negative: 0 or 1."""
    value, index = _number(value), _number(index)
    if isinstance(value, int):
        return ite(among(index, [n for n in range(value.bit_length()) if value >> n & 1]), 1, 0)
    if value.op == "ite":
        return ite(value.args[0], bit(value.args[1], index), bit(value.args[2], index))  # type: ignore[arg-type]
    if value.op in ("set", "clear"):
        number, at = value.args
        return ite(equal(index, at), int(value.op == "set"), bit(number, index))  # type: ignore[arg-type]
    return make("bit", value, index)


def with_bit(value: Value, index: Value) -> Value:
    """The number with this bit set."""
    value, index = _number(value), _number(index)
    if isinstance(value, int) and isinstance(index, int):
        return value | 1 << index
    return make("set", value, index)


def without_bit(value: Value, index: Value) -> Value:
    """The number with this bit not set."""
    value, index = _number(value), _number(index)
    if isinstance(value, int) and (value == 0 or isinstance(index, int)):
        return value & ~(1 << index) if isinstance(index, int) else 0
    return make("clear", value, index)


def pair(page: Value) -> Value:
    """The even page of a page and its neighbour: page & ~1."""
    constant, terms = parts(page)
    if not terms:
        return constant & ~1
    if len(terms) == 1 and next(iter(terms)).op == "pair" and next(iter(terms.values())) == 1:
        return _lin(constant & ~1, terms)
    return make("pair", _number(page))


def neighbour(page: Value) -> Value:
    """The other page of the pair: page ^ 1."""
    return minus(plus(pair(page), plus(pair(page), 1)), page)


def xor(a: Value, b: Value) -> Value:
    """a ^ b."""
    first, second = equal(a, 0), equal(b, 0)
    other = ite(both(equal(a, 1), equal(b, 1)), 0, make("xor", _number(a), _number(b)))
    return ite(first, b, ite(second, a, other))


def least(a: Value, b: Value) -> Value:
    """min(a, b)."""
    return ite(at_most(a, b), a, b)


def most(a: Value, b: Value) -> Value:
    """max(a, b)."""
    return ite(at_most(b, a), a, b)


# ------------------------------------------------------------------------------------------------- truth values
def truth(value: Value) -> Value:
    """Python's truth of a value: a number that is not 0."""
    return value if is_truth(value) else negate(equal(value, 0))


def equal(a: Value, b: Value) -> Value:
    return _zero(minus(a, b))


def _zero(value: Value) -> Value:
    constant, terms = parts(value)
    if not terms:
        return constant == 0
    if len(terms) == 1:
        ((term, factor),) = terms.items()
        if constant % factor or (term.op == "set" and constant == 0):
            return False
        chosen = _chosen(term, lambda leaf: equal(leaf, -constant // factor))
        if chosen is not None:
            return chosen
        constant, terms = constant // factor, {term: 1}
    elif min(terms.items(), key=lambda pair: pair[0].uid)[1] < 0:
        constant, terms = -constant, {t: -c for t, c in terms.items()}
    return make("eq0", _lin(constant, terms))


def _chosen(term: Term, compare: Callable[[Value], Value]) -> Value | None:
    """A comparison of an `ite` whose results are constants, as a condition; None for another term."""
    if term.op == "ite" and (isinstance(term.args[1], int) or isinstance(term.args[2], int)):
        condition, a, b = term.args
        yes, no = compare(a), compare(b)  # type: ignore[arg-type]
        if isinstance(yes, bool) or isinstance(no, bool):
            return choose(condition, yes, no)  # type: ignore[arg-type]
    return None


def at_most(a: Value, b: Value) -> Value:
    """a <= b."""
    value = minus(a, b)
    constant, terms = parts(value)
    if not terms:
        return constant <= 0
    if len(terms) == 1:
        ((term, factor),) = terms.items()
        chosen = _chosen(term, lambda leaf: at_most(plus(constant, leaf, factor), 0))
        if chosen is not None:
            return chosen
    return make("le0", value)


def below(a: Value, b: Value) -> Value:
    """a < b."""
    return at_most(plus(a, 1), b)


def negate(a: Value) -> Value:
    """`not a`."""
    if isinstance(a, bool):
        return not a
    assert isinstance(a, Term)
    found = _NEGATED.get(a)
    if found is None:
        found = _NEGATED[a] = _negated(a)
    return found


_NEGATED: dict[Term, Value] = {}


def _negated(a: Term) -> Value:
    if a.op == "not":
        return a.args[0]  # type: ignore[return-value]
    if a.op == "le0":
        return at_most(minus(1, a.args[0]), 0)  # type: ignore[arg-type]
    if a.op == "and":
        return any_of(negate(x) for x in a.args)  # type: ignore[arg-type]
    if a.op == "or":
        return all_of(negate(x) for x in a.args)  # type: ignore[arg-type]
    return make("not", a)


def choose(condition: Value, a: Value, b: Value) -> Value:
    """The truth value `a` where the condition holds, else `b`."""
    if isinstance(condition, bool):
        return a if condition else b
    if a is b:
        return a
    if isinstance(a, bool):
        return any_of((condition, b)) if a else both(negate(condition), b)
    if isinstance(b, bool):
        return any_of((negate(condition), a)) if b else both(condition, a)
    return make("bite", condition, a, b)


def _joined(op: str, values: Iterable[Value]) -> Value:
    neutral = op == "and"
    found: dict[Term, None] = {}
    for value in map(truth, values):
        if not isinstance(value, Term):
            if value is not neutral:
                return value
        elif value.op == op:
            found.update(dict.fromkeys(value.args))  # type: ignore[arg-type]
        else:
            found[value] = None
    if len(found) < 2:
        return next(iter(found), neutral)
    if any(_opposite(term) in found for term in found):
        return not neutral
    return make(op, *sorted(found, key=_uid))


def _opposite(term: Term) -> Value:
    """The negation of a term, where it is looked for: of a conjunction or a disjunction, nothing is."""
    return False if term.op in ("and", "or") else negate(term)


def _uid(term: Term) -> int:
    return term.uid


def all_of(values: Iterable[Value]) -> Value:
    return _joined("and", values)


def any_of(values: Iterable[Value]) -> Value:
    return _joined("or", values)


def both(a: Value, b: Value) -> Value:
    return _joined("and", (a, b))


def implies(a: Value, b: Value) -> Value:
    return any_of((negate(truth(a)), b))


def within(low: Value, value: Value, high: Value) -> Value:
    """low <= value < high."""
    return both(at_most(low, value), below(value, high))


def among(value: Value, options: Iterable[int]) -> Value:
    """Whether a number is one of these."""
    return any_of(equal(value, option) for option in options)


# ------------------------------------------------------------------------------------------------- substitution
def replaced(value: Value, by: dict[Term, Value], done: dict[Term, Value] | None = None) -> Value:
    """The formula with terms replaced; `done` may be kept between calls with the same `by`."""
    if not isinstance(value, Term):
        return value
    done = {} if done is None else done
    found = by.get(value)
    if found is None:
        found = done.get(value)
    if found is None:
        found = done[value] = _rebuilt(value, lambda part: replaced(part, by, done))
    return found


def _rebuilt(term: Term, new: Callable[[Value], Value]) -> Value:
    """The same operation on new arguments."""
    op, args = term.op, term.args
    if op in ("var", "flag"):
        return term
    if op == "read":
        return read(args[0], new(args[1]))  # type: ignore[arg-type]
    if op == "lin":
        total: Value = args[0]  # type: ignore[assignment]
        for part, factor in args[1]:  # type: ignore[attr-defined]
            total = plus(total, new(part), factor)
        return total
    if op in LOOPS:
        # the body's own page is bound in it
        return make(op, new(args[0]), new(args[1]), *args[2:4], *map(new, args[4:]))  # type: ignore[arg-type]
    if op == "thread":
        return term
    return _BUILD[op](*(new(part) for part in args))  # type: ignore[arg-type]


_BUILD: dict[str, Callable[..., Value]] = {
    "head": head, "end": end, "ite": ite, "bite": choose, "not": negate, "eq0": _zero, "le0": lambda a: at_most(a, 0),
    "and": lambda *a: all_of(a), "or": lambda *a: any_of(a), "bit": bit, "set": with_bit, "clear": without_bit,
    "pair": pair, "block": block, "xor": lambda a, b: make("xor", a, b),
}  # fmt: skip


def bodies_at(body: Value, page: Value) -> Value:
    """The body of a loop at one page."""
    return replaced(body, {var(BOUND): page, var(OUTER): var(BOUND)})


def leaves(value: Value, ops: frozenset[str], found: dict[Term, None] | None = None) -> dict[Term, None]:
    """The parts of a formula with one of these operations, in a fixed order; bodies of loops are not looked into."""
    found = {} if found is None else found
    stack, seen = [value], set[Term]()
    while stack:
        here = stack.pop()
        if not isinstance(here, Term) or here in seen:
            continue
        seen.add(here)
        if here.op in ops:
            found[here] = None
        stack += inside(here)
    return found


def reads(value: Value) -> list[Term]:
    """The fields that a formula reads, also in bodies of loops."""
    found = leaves(value, frozenset(("read", *LOOPS)))
    made: dict[Term, None] = {}
    for leaf in found:
        if leaf.op == "read":
            made[leaf] = None
        else:
            for body in leaf.args[2:4]:
                made.update(dict.fromkeys(reads(body)))  # type: ignore[arg-type]
    return list(made)


def has(value: Value, variable: Term) -> bool:
    """Whether a formula has a variable, bodies of loops not looked into."""
    return variable in leaves(value, frozenset(("var",)))


def inside(term: Term) -> list[Value]:
    """The arguments that are formulas, without the bodies of loops."""
    if term.op in ("var", "flag", "thread"):
        return []
    if term.op == "read":
        return [term.args[1]]  # type: ignore[list-item]
    if term.op == "lin":
        return [part for part, _ in term.args[1]]  # type: ignore[attr-defined]
    if term.op in LOOPS:
        return [*term.args[:2], *term.args[4:]]  # type: ignore[list-item]
    return list(term.args)  # type: ignore[arg-type]
