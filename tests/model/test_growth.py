"""A new entry of a model table is honoured by each engine, or the import fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import grown_copies
from grown_copies import LAYOUT, Copy
from ultrafolio.check.search.packing import LABEL_BITS, STEP_PROPERTY
from ultrafolio.model.designs import OUTCOMES_END
from ultrafolio.model.layout import ACTOR_KINDS, CFG, DEAD, OUTCOMES, WAITS
from ultrafolio.model.properties import PROPERTIES

ROOT = Path(__file__).parents[2]
LAST = len(PROPERTIES)
"""The number of the property that is added."""
MOST = (1 << (LABEL_BITS - STEP_PROPERTY)) - 1
"""Most properties that fit into the property field of a memoised step."""
OUTCOMES_TOO_MANY = range(len(OUTCOMES), 129 - (OUTCOMES_END - len(OUTCOMES)))
"""Numbers of more outcomes of s390, with which the design with the most outcomes has one more than bits can name."""


def ran(folder, full):
    """Returns the JSON object that growth_program prints for a copy."""
    paths = [folder, ROOT / "tests/support", ROOT / "benchmarks", ROOT]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/support" / "growth_program.py"), *(["--full"] if full else [])],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "NUMBA_DISABLE_JIT": str(int(not full)),
            "ULTRAFOLIO_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
def grown(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grown")
    grown_copies.grown(folder, LAST)
    return ran(folder, request.param == "compiled")


def test_each_table_has_one_more(grown):
    tables = grown["tables"]
    assert tables["rules"] and tables["last"] == LAST
    assert (tables["outcome"], tables["slots"]) == (len(OUTCOMES), OUTCOMES_END + 1)


def test_a_new_wait_reason_is_not_that_of_a_parked_vcpu(grown):
    assert grown["tables"]["wait"] == len(WAITS)
    assert grown["tables"]["parked"] == [len(WAITS) + 1, len(WAITS) + 2]
    simulated = grown["simulator"]
    assert simulated["refused"], "the kicker never waited"
    assert simulated["begun"] == simulated["done"], "a kicker that waited was not woken"


def test_a_new_outcome_has_a_cost_of_its_own(grown):
    assert grown["simulator"]["usual"] == [777], "not the cost of its rule"
    assert grown["simulator"]["pauses"] == [3210] and grown["simulator"]["said"]


def test_a_new_property_is_found_with_its_number(grown):
    assert grown["interpreter"]["broke"] == [LAST]
    assert grown["checker"]["yes"]["violated"] == ["nobody kicks"]
    assert grown["folded"]["broken"] == [LAST]
    assert grown["simulator"]["broken"] == [0] * LAST + [grown["simulator"]["done"]]
    assert grown["simulator"]["columns"] == LAST
    assert grown["store"]["broken"] == ["nobody kicks"]
    assert grown["promela"]["asserts"] and grown["promela"]["names"]


def test_a_new_configuration_field_decides(grown):
    assert grown["checker"]["no"]["violated"] == []
    assert grown["checker"]["no"]["states"] == grown["checker"]["yes"]["states"]


def test_new_rules_of_a_new_kind_are_explored_as_the_interpreter_steps(grown):
    plain, checked = grown["interpreter"], grown["checker"]["yes"]
    assert (checked["states"], checked["edges"]) == (plain["states"], plain["edges"])
    assert checked["kicks"] > 0 and checked["story"] == [["kick-start", "KICKED"], ["kick-page", "KICKED"]]
    assert grown["store"]["accepted"], grown["store"]["why"]
    assert grown["promela"]["waits"]


def test_spin_finds_the_same_of_a_grown_model(grown):
    if "spin" not in grown["promela"]:
        pytest.skip("SPIN runs in the compiled form, where it is installed")
    plain = grown["interpreter"]
    assert grown["promela"]["spin"] == {"states": plain["states"], "edges": plain["edges"], "wrong": 1}


def test_states_are_folded_over_the_pages_of_a_new_kind(grown):
    folded = grown["folded"]
    assert folded["states"] == folded["apart"] < folded["of"]


# ------------------------------------------------------------------------------------------ the import says no
def many_properties(copy):
    for n in range(LAST, MOST + 2):
        grown_copies.break_property(copy, n)
    names = ", ".join(f'"property {n}"' for n in range(LAST, MOST + 2))
    copy.entry("model/properties.py", "PROPERTIES", names)
    copy.entry("model/properties.py", "SEED", names)


def many_outcomes(copy):
    copy.number(LAYOUT, "OK", *(f"E_{n}" for n in OUTCOMES_TOO_MANY))
    copy.entry(LAYOUT, "OUTCOMES", ", ".join(f'"E {n}"' for n in OUTCOMES_TOO_MANY))
    copy.entry("waits/tables.py", "UNOBSTRUCTED", ", ".join(f"_layout.E_{n}" for n in OUTCOMES_TOO_MANY))


def many_waits(copy):
    """With the two of parked vCPUs, and 0, which is none, one more than bits."""
    names = [f"W_{n}" for n in range(len(WAITS), 62)]
    copy.number(LAYOUT, "W_IDLE", *names)
    copy.entry(LAYOUT, "WAITS", ", ".join(f'"{name}"' for name in names))
    copy.entry("waits/tables.py", "UNOBSTRUCTED", ", ".join(f"_layout.{name}" for name in names))
    copy.imports("sim/records.py", f"from ultrafolio.model.layout import {', '.join(names)}")
    copy.entry("sim/records.py", "FREES", ", ".join(f"-{name}" for name in names), key="lock")


def many_rules(copy):
    names = [f"KICK_{n}" for n in range(DEAD, 256)]
    copy.number(LAYOUT, "DEAD", *names, before="DEAD")
    copy.append(grown_copies.RULES, "".join(RULE.format(place=name) for name in names))


def many_kinds(copy):
    names = [f"kind{n}" for n in range(len(ACTOR_KINDS), 257)]
    grown_copies.add_rules(copy)
    copy.entry(LAYOUT, "ACTOR_KINDS", ", ".join(f'"{name}"' for name in names))
    copy.entry(LAYOUT, "IDLE_PC", ", ".join(["KICK_IDLE"] * len(names)))
    copy.entry("model/scenario.py", "ACTORS", ", ".join(f'"{name}": {{}}' for name in names))


def many_words(copy):
    grown_copies.add_choice(copy)
    grown_copies.add_cfg(copy)
    copy.entry("model/policy.py", "CHOICES", ", ".join(f'"word {n}"' for n in range(2, 257)), key="kick")


def unfreed_wait(copy):
    grown_copies.add_wait(copy)
    fact('takers="vcpu"')(copy)
    copy.entry("waits/tables.py", "UNOBSTRUCTED", "_layout.W_KICK")


def unheard_word(copy):
    copy.number(LAYOUT, "DEAD", "KICK", before="DEAD")
    copy.append(grown_copies.RULES, RULE.format(place="KICK").replace(")", ', releases="kick")', 1))


def fact(said, instead_of='takers="vcpu"'):
    """Returns an edit that adds a rule with this fact."""

    def edit(copy):
        copy.number(LAYOUT, "DEAD", "KICK", before="DEAD")
        copy.append(grown_copies.RULES, RULE.format(place="KICK").replace(instead_of, said))

    return edit


def unfolded_kind(copy):
    grown_copies.add_rules(copy)
    grown_copies.add_kind(copy)
    copy.entry("model/scenario.py", "ACTORS", '"kicker": {}')
    copy.entry("waits/words.py", "_OWES_NOTHING", "layout.KICKER")


def free_kind(copy):
    grown_copies.add_rules(copy)
    grown_copies.add_kind(copy)
    grown_copies.tell_kind(copy)


def unread_kind(copy):
    grown_copies.add_rules(copy)
    grown_copies.add_kind(copy)


def idle_nowhere(copy):
    copy.entry(LAYOUT, "ACTOR_KINDS", '"kicker"')
    copy.entry("model/scenario.py", "ACTORS", '"kicker": {}')


def named_property(copy):
    copy.entry("model/properties.py", "PROPERTIES", '"nobody kicks"')
    copy.entry("model/properties.py", "SEED", '""')


RULE = '''
@rule({place}, takers="vcpu", kernel="none")
def on_{place}(s, t):
    """Nothing happens."""
    return OK

'''
REFUSED = {
    # a table grew, and what must grow with it did not: the edit, what is said, how many there are, the place to widen
    "a number of a property that has no name": (
        lambda copy: grown_copies.break_property(copy, LAST),
        "broken() returns",
        LAST,
        "PROPERTIES",
    ),
    "a property that nothing breaks": (named_property, f"broken() never returns {LAST}", LAST, "broken"),
    "a property without the mail's sentence": (
        lambda copy: copy.entry("model/properties.py", "PROPERTIES", '"nobody kicks"'),
        "the mail",
        LAST + 1,
        "SEED",
    ),
    "an outcome without a word": (
        lambda copy: copy.number(LAYOUT, "OK", "KICKED"),
        "outcomes, and the words",
        len(OUTCOMES),
        "OUTCOMES",
    ),
    "a reason to wait without a word": (
        lambda copy: copy.number(LAYOUT, "W_IDLE", "W_KICK"),
        "reasons to wait, and the words",
        len(WAITS),
        "WAITS",
    ),
    "a reason with the number of another": (
        lambda copy: copy.append(LAYOUT, "W_KICK = -8\n"),
        "reasons to wait, and their numbers",
        len(WAITS),
        "same",
    ),
    "a reason that the simulator never ends": (
        unfreed_wait,
        "the simulator never ends nobody to lock the folio",
        len(WAITS),
        "FREES or POLLED",
    ),
    "a release that nobody knows": (unheard_word, "the simulator does not know kick", None, "FREES"),
    "a release that no rule gives": (
        lambda copy: copy.entry("sim/records.py", "FREES", '"kick": (-W_LOCK,)'),
        "releases kick",
        None,
        "@rule",
    ),
    "a taker that is no kind of actor": (fact('takers="kicker"', 'takers="vcpu"'), "kicker of on-KICK", None, "KINDS"),
    "a call that nobody knows": (fact('takers="vcpu", call="kick"'), "kick of on-KICK", None, "CALLS"),
    "a sleep that nobody knows": (fact('takers="vcpu", sleeps="kick"'), "kick of on-KICK", None, "SLEEPS"),
    "a cost that nobody knows": (fact('takers="vcpu", cost="kick"'), "kick of on-KICK", None, "DEFAULTS"),
    "a place without a rule": (
        lambda copy: copy.number(LAYOUT, "DEAD", "KICK", before="DEAD"),
        "KICK has no rule",
        DEAD + 1,
        "RULE_MODULES",
    ),
    "a rule at the place of another": (
        lambda copy: copy.append(grown_copies.RULES, RULE.format(place="PUT")),
        "the places they have",
        DEAD + 1,
        "order",
    ),
    "a kind that idles nowhere": (idle_nowhere, "the rules where they idle", len(ACTOR_KINDS) + 1, "IDLE_PC"),
    "a kind that no scenario can have": (unread_kind, "cannot say kicker", len(ACTOR_KINDS) + 1, "ACTORS"),
    "an outcome of which waits do not know": (
        grown_copies.add_outcome,
        "an obstacle is met: KICKED",
        None,
        "OBSTACLE_OF",
    ),
    "a wait of which waits do not know": (
        grown_copies.add_wait,
        "an obstacle is met: nobody to lock the folio",
        None,
        "UNOBSTRUCTED",
    ),
    "a kind of which nobody says what it owes": (free_kind, "what kicker owes", len(ACTOR_KINDS) + 1, "_OWES"),
    "a kind that folding does not know": (unfolded_kind, "not know kicker", len(ACTOR_KINDS) + 1, "WORKERS"),
    "a choice without a field": (grown_copies.add_choice, "kick reaches no rule", None, "CFG"),
    "a field that nobody sets": (grown_copies.add_cfg, "nobody sets kick", len(CFG.names) + 1, "SET_BESIDE"),
    # more than the field of their numbers can hold
    "properties": (many_properties, "property in a memoised step", MOST + 1, "check/search/packing.py"),
    "outcomes": (many_outcomes, "outcomes that an event may name", 128, "EVENT"),
    "reasons to wait": (many_waits, "reasons to wait, a bit each", 64, "RELEASES"),
    "rules": (many_rules, "rules that task.pc may name", 256, "TASK"),
    "kinds": (many_kinds, "kinds of actors that who.kind may name", 256, "WHO"),
    "words of a choice": (many_words, "words of the choice kick", 256, "CFG"),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """Returns the error of the import by name of the edit; "" for the unchanged package."""
    folders = {name: tmp_path_factory.mktemp("refused") for name in ["unchanged", *REFUSED]}
    for name, folder in folders.items():
        copy = Copy(folder)
        if name in REFUSED:
            REFUSED[name][0](copy)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/support" / "growth_imports.py"), *map(str, folders.values())],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(folders, map(json.loads, done.stdout.splitlines()), strict=True))


def test_the_package_as_it_is_can_be_imported(refusals):
    assert refusals["unchanged"] == ""


@pytest.mark.parametrize("name", REFUSED)
def test_the_import_names_what_does_not_fit(refusals, name):
    _, what, there, widen = REFUSED[name]
    said = refusals[name].splitlines()
    assert said[0].startswith("Outgrown: ") and what in said[0], refusals[name]
    numbers = [int(line.split()[-1]) for line in said[1:3]]
    assert numbers[0] > numbers[1] and (there is None or numbers[0] == there), refusals[name]
    assert said[3].split()[0] == "widen" and widen in said[3], refusals[name]
