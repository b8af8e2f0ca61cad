"""Mutations of single lines of the rules, and what becomes of a proof with each.

    PYTHONPATH=src:tests/support python tests/support/rule_mutations.py COUNT

prints for each of the first COUNT mutations what it breaks.
"""

import ast
import functools
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from plain_graph import TooLarge
from second_opinion import opinion
from ultrafolio.engine.load import mutant
from ultrafolio.engine.tables import RULE_MODULES
from ultrafolio.model import properties, scenario
from ultrafolio.model.rule import RULES
from ultrafolio.prove import judge
from ultrafolio.prove.before import Problem
from ultrafolio.prove.earlier import bodies
from ultrafolio.prove.houdini import Houdini, Tally
from ultrafolio.prove.paths import reached
from ultrafolio.prove.rules import Rules, unchanged
from ultrafolio.prove.state import Refused

TEXTS = {
    Path(module.__file__).stem: Path(module.__file__).read_text() for module in RULE_MODULES if module != properties
}


@dataclass(frozen=True)
class Mutation:
    """One line that is changed. name: module, function, the line before and after; changed: as Rules takes it."""

    name: str
    function: str
    old: str
    new: str

    @property
    def changed(self):
        return {self.old: self.new}


def mutated(node, line):
    """What a line that is one statement, or the head of an `if`, is changed into."""
    space = line[: len(line) - len(line.lstrip())]
    match node:
        case ast.If() if line.rstrip().endswith(":"):
            word, _, test = line.strip()[:-1].partition(" ")
            if word in ("if", "elif"):
                yield f"{space}{word} not ({test}):"
                yield from (
                    line.replace(a, b) for a, b in ((" == ", " != "), (" and ", " or "), (" > ", " >= ")) if a in line
                )
        case ast.Assign() | ast.AugAssign() | ast.Expr(value=ast.Call()) if node.end_lineno == node.lineno:
            yield f"{space}pass"
            yield from (
                line.replace(a, b)
                for a, b in ((" + 1", ""), (" - 1", ""), (" = 0", " = 1"), (" = 1", " = 0"))
                if a in line
            )


def mutations(functions):
    """Every mutation of these functions of the rules, in an order that does not depend on the other ones."""
    made = []
    for module, text in TEXTS.items():
        lines = text.splitlines()
        for function in ast.parse(text).body:
            if not isinstance(function, ast.FunctionDef) or function.name not in functions:
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.stmt) and node is not function:
                    for new in mutated(node, lines[node.lineno - 1]):
                        one = alone(lines, node.lineno - 1, new)
                        if one:
                            name = f"{module}.{function.name}: {lines[node.lineno - 1].strip()} -> {new.strip()}"
                            made.append(Mutation(name, function.name, *one))
    return sorted(made, key=lambda one: hashlib.sha256(f"{one.name}{one.old}".encode()).hexdigest())


def alone(lines, at, new):
    """The line with as many lines before it as make it the only such text, before and after; None where none do."""
    for first in range(at, max(at - 6, -1), -1):
        old = "\n".join(lines[first : at + 1]) + "\n"
        if sum(text.count(old) for text in TEXTS.values()) == 1:
            return old, "\n".join([*lines[first:at], new]) + "\n"
    return None


def run_by(proof):
    """The functions that the steps of a proof run."""
    rules = {RULES[place.pc].function.__name__ for place in proof.problem.places if place.pc in RULES}
    return set(bodies(unchanged(), tuple(rules)))


SYSTEMS = (
    {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}], "disk": [{"page": 0}]},
    {"memory": {"folios": [0], "state": ["shared"]}, "vcpu": [{"share": [0], "unshare": [0], "starts": 2}]},
    {"memory": {"folios": [1], "state": ["shared", "secure"]}, "vcpu": [{"touch": [1]}], "disk": [{"page": 0}]},
    {"memory": {"folios": [0], "state": ["secure"], "owner": [0]},
     "vcpu": [{"guest": 0, "touch": [0]}, {"guest": 1, "cpu": 1, "touch": [0]}]},
    {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}], "lru": [{"page": [0], "cpu": 1}]},
    {"memory": {"folios": [0], "state": ["secure"]}, "vcpu": [{"touch": [0]}], "writeback": [{"page": [0]}]},
    {"memory": {"folios": [0], "state": ["secure"]}, "vcpu": [{"touch": [0]}], "reboot": [{}], "disk": [{"page": 0}]},
    {"memory": {"folios": [1], "state": ["shared", "exported"]}, "vcpu": [{"touch": [1]}], "virtio": [{"page": 0}]},
)  # fmt: skip
"""Small systems in which a hang is looked for."""


def hang(policy, mutation):
    """What a second implementation of the checker's definitions says of SYSTEMS that it does not say without the
    mutation: a wait that never ends, or a property that breaks; "" where nothing."""
    for n, document in enumerate(SYSTEMS):
        made, was = scenario.system(scenario.parse(document, "mutated"), policy), unbroken(policy, n)
        try:
            now = opinion(made, mutant(mutation.changed))
        except (IndexError, OverflowError, UnboundLocalError) as error:
            return f"no step: {error!r}"
        except TooLarge:
            continue
        new = sorted(set(now.leads_to) - set(was.leads_to))
        if new:
            return f"{new[0][0]}: {new[0][2]}"
        if set(now.safety) - set(was.safety):
            return f"breaks property {min(set(now.safety) - set(was.safety))}"
    return ""


@functools.cache
def unbroken(policy, n):
    return opinion(scenario.system(scenario.parse(SYSTEMS[n], "unbroken"), policy))


class Fell(Exception):
    """A fact of an earlier proof is broken."""


class Strict(Houdini):
    """Keeps what an earlier proof kept, and ends at the first of it that a step breaks. Initial states are the same."""

    def _start(self, place):
        pass

    def _drop(self, fact, why):
        if fact in self._earlier.problem.kept:
            raise Fell(f"{why} breaks: {fact[2]}")
        super()._drop(fact, why)


def fate(proof, policy, without, mutation):
    """What a mutation breaks of a proof: "" where nothing, "no step" where no step of it is another one."""
    rules = Rules(mutation.changed)
    try:
        paths = reached(rules, policy.codes(), without)
    except Refused as refused:
        return f"refused: {refused}"
    if paths == proof.problem.paths:
        return "no step"
    problem = Problem(rules, policy.codes(), paths)
    run = Strict(problem, Tally(), earlier=proof.earlier, numbers=tuple(proof.open))
    try:
        run.run()
        made = judge.verdicts(run, tuple(proof.open))
    except Refused as refused:
        return f"refused: {refused}"
    except Fell as fell:
        return str(fell)
    for number, steps in made.open.items():
        new = [at.place.name for at in steps if at.place not in {old.place for old in proof.open[number]}]
        if new:
            return f"property {number} at {new[0]}"
    return ""


def fates(proof, policy, without, count, stands=frozenset()):
    """(name, what it breaks) of the first mutations that change a step of the proof: of the proof, or of SYSTEMS; ""
    where nothing. For those that `stands` names, SYSTEMS are not looked at."""
    seen = set()
    for each in mutations(run_by(proof)):
        end = "no step" if each.name in seen else fate(proof, policy, without, each)
        if end != "no step":
            seen.add(each.name)
            yield each.name, end or ("" if each.name in stands else hang(policy, each))
        if len(seen) == count:
            return


if __name__ == "__main__":
    from proving import FEW_KINDS, ONE
    from ultrafolio.model import policies
    from ultrafolio.prove import all_but

    base = judge.prove(policies.find(ONE), without=all_but(FEW_KINDS))
    for word, ending in fates(base, policies.find(ONE), all_but(FEW_KINDS), int(sys.argv[1])):
        print(f"{word}\n    {ending or 'NOTHING'}", flush=True)
