"""Systems of the design guest_memfd: the shipped scenarios under each policy of theirs, and small random ones."""

from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from ultrafolio.model import policies, scenario
from ultrafolio.model.guest_memfd.layout import KINDS
from ultrafolio.model.guest_memfd.machines import NAMES
from ultrafolio.model.guest_memfd.policy import FIELDS, PRESETS, VARIANTS
from ultrafolio.model.guest_memfd.scenario import ACTORS, BESIDE_A_HOLE
from ultrafolio.model.layout import ENDLESS

FOLDER = Path(__file__).parents[2] / "scenarios" / "guest_memfd"
STORIES = {path.stem: scenario.read(path) for path in sorted(FOLDER.glob("*.toml"))}


def _asked(name: str, story: scenario.Scenario) -> list[tuple[str, str, str]]:
    """(name, policy, machine) of each entry of [expect] of a scenario."""
    entries = [key.partition("@") for key in story.expect]
    return [(name, policy, machine or story.machine) for policy, _, machine in entries]


SHIPPED = [one for name, story in STORIES.items() for one in _asked(name, story)]
"""Scenario, policy and machine of each expectation."""


def on(name: str, machine: str = "") -> scenario.Scenario:
    """A shipped scenario, on another machine than its own if one is named."""
    story = STORIES[name]
    return scenario.on_machine(story, machine or story.machine, name)


def system(name: str, policy: str, machine: str = "") -> scenario.System:
    """The system of a shipped scenario."""
    return scenario.system(on(name, machine), policies.find_any(policy, STORIES[name].tables))


class Case(NamedTuple):
    """A scenario as a document, and a policy."""

    name: str
    document: dict[str, Any]
    policy: policies.AnyPolicy

    @property
    def story(self) -> scenario.Scenario:
        return scenario.parse(self.document, self.name)

    def system(self) -> scenario.System:
        return scenario.system(self.story, self.policy)


def _actor(random: Random, kind: str, pages: int) -> dict[str, Any]:
    """A table of this kind of actor."""
    fields, page = ACTORS[kind], random.randrange(pages)
    made: dict[str, Any] = {"starts": random.choice([1, 1, 1, 2, ENDLESS])}
    if kind == "vcpu":
        words = random.sample(["touch", "share", "unshare"], random.randint(1, 2))
        made |= {word: [random.randrange(pages)] for word in words} | {"cpu": random.randint(0, 1)}
        return made | {"small": random.random() < 0.2}
    made["page"] = [page] if fields["page"].kind == "ints" else page
    if kind in ("vmm", "hole"):
        made["pages"] = random.randint(1, pages - page)
    if kind == "vmm":
        made["to"] = random.choice(["private", "shared"])
    if "process" in fields:
        made["process"] = random.randint(0, 1)
    if "cpu" in fields:
        made["cpu"] = random.randint(0, 1)
    if "locked" in fields:
        made["locked"] = random.random() < 0.3
    if "copies" in fields:
        made["copies"] = random.random() < 0.5
    if "completes" in fields and random.random() < 0.2:
        made["completes"] = False
    return made


def drawn(number: int) -> Case:
    """The case of this number, always the same: one or two pages, two or three actors."""
    random = Random(f"guest_memfd {number}")
    huge = random.random() < 0.25
    pages = 2 if huge else random.choice([1, 1, 2])
    document: dict[str, Any] = {
        "design": "guest_memfd",
        "machine": random.choice(NAMES),
        "memory": {
            "folios": [1] if huge else [0] * pages,
            "state": [random.choice(["private", "shared", "shared"]) for _ in range(pages)],
            "allocated": random.random() < 0.8,
            "mapped": random.random() < 0.5,
            "refuses": [0] if random.random() < 0.1 else [],
            "never": [0] if random.random() < 0.05 else [],
            "no_table": random.choice([0, 0, 0, 1]),
            "no_folio": random.choice([0, 0, 0, 1]),
        },
    }
    kinds = [random.choice(["vcpu", "vmm"]), *random.choices(list(ACTORS), k=random.randint(1, 2))]
    if huge:
        kinds = [kind if kind != "hole" else "vmm" for kind in kinds]
    if "hole" in kinds:
        kinds = [kind if KINDS.index(kind) in BESIDE_A_HOLE else "user" for kind in kinds]
    for kind in kinds:
        document.setdefault(kind, []).append(_actor(random, kind, pages))
    for user in document.get("user", []) if "hole" in document else []:
        user["locked"] = False
    table: dict[str, Any] = {"base": random.choice(list(PRESETS)), "retries": random.choice([0, 0, 1, 2])}
    table |= {name: random.choice(list(field.choices)) for name, field in FIELDS.items() if field.kind == "choice"}
    if random.random() < 0.2:
        table["variants"] = [random.choice(list(VARIANTS))]
    if huge:
        table |= {"base": "gmem-hugetlb-2025-12", "large": random.choice(FIELDS["large"].choices[1:])}
    if table["convert"] == "by-guest":
        document["machine"] = "pkvm"
    return Case(f"drawn {number}", document, policies.any_from_table(table, "drawn"))


def drawn_huge(number: int) -> Case:
    """A case with one or two huge pages that meets what a proof assumes: under one of the presets with huge pages, or
    a policy that is drawn."""
    random = Random(f"huge pages {number}")
    pages = random.choice([2, 2, 4])
    states = random.choice([["private"], ["shared"], [random.choice(["private", "shared"]) for _ in range(pages)]])
    document: dict[str, Any] = {
        "design": "guest_memfd",
        "machine": random.choice(NAMES),
        "memory": {
            "folios": [1] * (pages // 2),
            "state": states * (pages // len(states)),
            "allocated": random.random() < 0.7,
            "no_table": random.choice([0, 0, 1]),
            "no_folio": random.choice([0, 0, 1, ENDLESS]),
        },
    }
    document["memory"]["mapped"] = document["memory"]["allocated"] and random.random() < 0.5
    kinds = ["vmm", *random.choices([kind for kind in ACTORS if kind != "hole"], k=random.randint(1, 2))]
    for kind in kinds:
        document.setdefault(kind, []).append(_actor(random, kind, pages))
    table: dict[str, Any] = {"base": random.choice([name for name, (_, one) in PRESETS.items() if one.large != "none"])}
    if random.random() < 0.4:
        table |= {name: random.choice(list(field.choices)) for name, field in FIELDS.items() if field.kind == "choice"}
        table |= {"large": random.choice(FIELDS["large"].choices[1:]), "retries": random.choice([0, 1, 2])}
        table["variants"] = random.sample(list(VARIANTS), k=random.choice([0, 0, 1]))
    if table.get("convert") == "by-guest":
        document["machine"] = "pkvm"
    return Case(f"huge {number}", document, policies.any_from_table(table, "drawn"))
