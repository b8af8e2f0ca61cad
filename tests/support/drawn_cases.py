"""Random small scenarios under random policies: whatever the language and the choices can say, drawn by a fixed seed.

Fields, choices and kinds of actors are read from the tables of the model, so what is added there is drawn, too. A field
whose meaning is not known here keeps its default.

    case(number)            the document and policy of this number, always the same
    fitting(number, fits)   the first such case that `fits`, and how many did not
"""

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from ultrafolio.errors import InputError
from ultrafolio.fields import Field
from ultrafolio.model import kernels, policies, scenario
from ultrafolio.model.layout import ENDLESS, PAGE_STATES
from ultrafolio.model.policy import VARIANTS, Policy

SEED = "a second opinion"
FOLIOS = ([0], [0, 0], [0, 0, 0], [1], [1], [1, 0], [1, 1], [1, 1, 0], [2], [2, 0])
KINDS = [name for name in scenario.ACTORS if name != "vcpu"]

Memory = dict[str, Any]


class Case(NamedTuple):
    """A scenario as a document, a policy, and the words that find it again."""

    name: str
    document: dict[str, Any]
    policy: Policy

    def system(self) -> scenario.System:
        return scenario.system(scenario.parse(self.document, self.name), self.policy)


def numbers(random: Random, field: Field) -> int:
    """A small number that the field allows."""
    return random.randint(int(field.low), int(min(field.high, field.low + 2)))


def drawn_policy(random: Random) -> Policy:
    """A preset with few choices changed, or every choice by chance."""
    changes = {}
    for name, field in policies.FIELDS.items():
        if field.kind == "choice":
            changes[name] = random.choice(list(field.choices))
        elif field.kind == "int":
            changes[name] = numbers(random, field)
    kept = random.choice([len(changes), len(changes), 2, 1, 0])
    table = {name: changes[name] for name in random.sample(list(changes), kept)}
    if random.random() < 0.2:
        table["variants"] = [random.choice(list(VARIANTS))]
    base = random.choice([*policies.PRESETS, *kernels.names()])
    return policies.from_table({"base": base, **table}, "drawn")


def drawn_actor(random: Random, name: str, memory: Memory, guests: int, budgets: tuple[int, ...]) -> dict[str, Any]:
    """A table of this kind of actor. Most act on the first folio, so that they meet."""
    made: dict[str, Any] = {}
    pages = 1 << memory["folios"][0] if random.random() < 0.6 else len(memory["state"])
    for word, field in scenario.ACTORS[name].items():
        if word == "starts":
            made[word] = random.choice(budgets)
        elif word == "guest":
            made[word] = random.randrange(guests)
        elif word == "page" and field.kind == "int":
            made[word] = random.randrange(pages)
        elif word == "pages":
            made[word] = 1 if random.random() < 0.7 else pages - made["page"]
        elif field.kind == "ints":
            few = random.choice([1, 1, 2]) if name != "vcpu" else random.choice([0, 1, 1, 2])
            made[word] = sorted(random.sample(range(pages), min(few, pages)))
        elif field.kind == "int":
            made[word] = numbers(random, field)
        elif field.kind == "bool":
            made[word] = bool(field.default) == (random.random() < 0.7)
        elif field.kind == "choice":
            made[word] = random.choice(list(field.choices))
    return made


def drawn_memory(random: Random, guests: int) -> Memory:
    folios = random.choice(FOLIOS)
    pages = sum(1 << order for order in folios)
    usual, every = ("shared", "secure", "exported"), (*(word.lower() for word in PAGE_STATES), scenario.EXPORTED_SHARED)
    likely = random.choice([usual, usual, every, ("non_secure",)])  # the last is split only by an import
    made: Memory = {
        "folios": folios,
        "backing": random.choice(list(scenario.MEMORY["backing"].choices)),
        "state": [random.choice(likely) for _ in range(pages)],
        "owner": [random.randrange(guests) for _ in range(pages)] if guests > 1 and random.random() < 0.5 else [0],
        "writable": random.random() < 0.8,
    }
    if random.random() < 0.3:
        made["dirty"] = random.random() < 0.5
    if random.random() < 0.05:
        made["refuses"] = [random.randrange(pages)]
    return made


def drawn_document(random: Random, number: int) -> dict[str, Any]:
    """A scenario. The kinds of actors take turns to be in it, every second time without end."""
    guests = random.choice([1, 1, 1, 2])
    memory = drawn_memory(random, guests)
    features = {name: random.random() < 0.5 for name in scenario.FEATURES}
    turn = KINDS[number % len(KINDS)]
    budgets = (ENDLESS,) if number // len(KINDS) % 2 == 0 else (1, 2)
    made: dict[str, Any] = {"memory": memory, "features": features}
    made["vcpu"] = [
        drawn_actor(random, "vcpu", memory, guests, (0, 1, 1, 2, 2, ENDLESS))
        for _ in range(random.choice([1, 1, 1, 2, 2, 3]))
    ]
    made[turn] = [drawn_actor(random, turn, memory, guests, budgets)]
    for name in random.choices([*KINDS, None], k=random.choice([0, 1, 1, 2, 2])):
        if name and len(made.setdefault(name, [])) < 2:
            made[name].append(drawn_actor(random, name, memory, guests, (1, 1, 2, ENDLESS)))
    names = [name for name in scenario.ACTORS if name in made]
    if random.random() < 0.15:
        made[random.choice(names)][0]["after"] = random.choice(names)
    return made


def case(number: int, attempt: int = 0) -> Case:
    """The case of this number; InputError where what was drawn is nothing the language allows."""
    name = f"{SEED}, {number}, {attempt}"
    random = Random(name)
    return Case(name, drawn_document(random, number), drawn_policy(random))


def fitting(number: int, fits: Callable[[Case], bool]) -> tuple[Case, int]:
    """The first case of this number that the language allows and that fits, and how many attempts were left out."""
    for attempt in range(100):
        try:
            made = case(number, attempt)
            made.system()
        except InputError:
            continue
        if fits(made):
            return made, attempt
    raise AssertionError(f"no case of number {number} fits")


def endless_kinds(document: dict[str, Any]) -> set[str]:
    """The kinds of actors with a budget that is never spent."""
    return {name for name in scenario.ACTORS for table in document.get(name, []) if table.get("starts") == ENDLESS}
