"""Names by pattern: one name a scenario, one scenario a name, and the shipped scenarios are what their names say."""

import json
import random
import re
import runpy
import tomllib

import pytest

from checking import PATHS, story
from named import plain, renumbered
from test_observation import FORM, run
from ultrafolio import api
from ultrafolio.cli import _COMMANDS
from ultrafolio.errors import InputError
from ultrafolio.export.observation import hash_of
from ultrafolio.model import layout, scenario
from ultrafolio.model.bounds import Outgrown
from ultrafolio.model.layout import ACTOR_KINDS
from ultrafolio.model.policies import find
from ultrafolio.names import find as names_find
from ultrafolio.names import grammar, text, words
from ultrafolio.names.shelf import NAMES, UNNAMED
from ultrafolio.names.words import DOES, HOW, MORE, OBSTACLES, WHERE

SHORT = list(grammar.names(3))
BY_TEXT = {str(name): name for name in SHORT}


# ---------------------------------------------------------------------------------------------- shipped scenarios
def test_each_shipped_scenario_has_a_name_or_a_reason():
    assert {*NAMES, *UNNAMED} == set(PATHS) and not {*NAMES} & {*UNNAMED}
    assert len(set(NAMES.values())) == len(NAMES) and all(UNNAMED.values())


@pytest.mark.parametrize("stem", NAMES)
def test_a_name_makes_the_shipped_scenario(stem):
    assert plain(grammar.scenario(grammar.read(NAMES[stem]))) == plain(story(stem))


def test_no_scenario_without_a_name_is_one_with_a_name():
    """Where a reason names another scenario, it is that one; no other scenario without a name has that of a name."""
    known = {renumbered(grammar.scenario(name)): str(name) for name in [*SHORT, *map(grammar.read, NAMES.values())]}
    for stem, reason in UNNAMED.items():
        found = known.get(renumbered(story(stem)))
        other = next(iter(re.findall(r"\d\d-[a-z-]+", reason)), None)
        if other is None:
            assert found is None, (stem, found)
        else:
            assert plain(story(stem)) == plain(story(other)) and found == NAMES[other], stem


# ---------------------------------------------------------------------------------------------- one name, one scenario
def test_two_names_are_two_scenarios(request):
    most = 4 if request.config.getoption("--long") else 3
    found = {}
    for name in grammar.names(most):
        key = renumbered(grammar.scenario(name))
        assert key not in found, f"{name} and {found.get(key)} are one scenario"
        found[key] = str(name)
    assert len(found) > (4000 if most == 4 else 500)


def test_the_comparison_sees_other_numbers_of_pages():
    one = scenario.parse({"memory": {"folios": [1], "state": ["shared", "secure"]}, "disk": [{"page": 0}]}, "a")
    same = scenario.parse({"memory": {"folios": [1], "state": ["secure", "shared"]}, "disk": [{"page": 1}]}, "b")
    other = scenario.parse({"memory": {"folios": [1], "state": ["secure", "shared"]}, "disk": [{"page": 0}]}, "c")
    assert renumbered(one) == renumbered(same) != renumbered(other)


def test_a_name_is_read_as_it_is_written():
    assert len(BY_TEXT) == len(SHORT)
    for name in SHORT:
        assert grammar.read(str(name)) == name and name.words <= 3
    longer = [grammar.read(name) for name in NAMES.values()]
    assert {str(name) for name in longer} == set(NAMES.values())


def test_every_word_is_in_a_name():
    seen = {
        word for name in [*BY_TEXT, *NAMES.values()] for part in name.split("+") for word in (part, *part.split("."))
    }
    known = {*OBSTACLES, *HOW, *WHERE, *DOES, *MORE}
    assert known <= seen, known - seen


def test_a_kind_of_actor_without_a_word_is_refused_at_the_import(monkeypatch):
    monkeypatch.setattr(layout, "ACTOR_KINDS", (*ACTOR_KINDS, "kicker"))
    with pytest.raises(Outgrown, match="no name has a word for kicker"):
        runpy.run_path(words.__file__)


def test_every_kind_of_actor_acts_under_some_name():
    seen = {kind for name in SHORT for kind, _ in grammar.scenario(name).actors}
    assert {ACTOR_KINDS[kind] for kind in seen} == set(ACTOR_KINDS)


def test_an_obstacle_acts_and_the_state_is_what_it_needs():
    for name in SHORT:
        made = grammar.scenario(name)
        kinds = [ACTOR_KINDS[kind] for kind, _ in made.actors]
        for term in (name.first, *name.others):
            assert not term.kind or kinds.count(term.kind) == 1, name
            if term.needs:
                assert made.memory["state"][0] in (term.needs, "exported_shared"), name


SECOND_NAMES = {
    "LPIN.buf.early+neigh": "LPIN.early+neigh",
    "DIO.in+neigh": "DIO+neigh",
    "LRU.other.out+self": "LRU.other+self",
    "WB.in+self": "WB+self",
    "TAMP+self+MAP": "MAP+self+TAMP",
    "IMP+self+RECL": "RECL.out+self",
    "DIRTY.early+large": "DIRTY+large",
    "IMP.iomap.early+large": "DIRTY+large",
    "DIO+neigh+WB+RECL+WB": "",
    "DIO+neigh+RECL+WB": "DIO+neigh+WB+RECL",
    "DIO.early.stuck+neigh": "DIO.stuck.early+neigh",
    "LPIN+neigh+WB+2vcpu": "LPIN+neigh+2vcpu+WB",
}


@pytest.mark.parametrize("second", SECOND_NAMES)
def test_a_second_name_of_a_scenario_is_refused(second):
    assert not SECOND_NAMES[second] or grammar.read(SECOND_NAMES[second])
    with pytest.raises(InputError):
        grammar.read(second)


WRONG = [
    "LPIN", "LPIN+", "+neigh", "lpin+neigh", "LPIN+nigh", "LPON+neigh", "LPIN.erly+neigh", "LPIN+neigh+",
    "LPIN++neigh", "LPIN..early+neigh", "LRU+self", "LRU.own.other+self", "IMP.twice+self", "BOOT+neigh",
    "OWNER+neigh", "INT.early+self", "LPIN.in+self", "DIO.stuck.twice+self", "DIO.after+self", "DIO+self+LPIN",
    "IMP+self+RECL.after", "DIO.early+self+both", "DIO+self+RECL.early", "DIO+self+RECL.shmem",
    "DIO+self+2vcpu+2vcpu", "A" * 300 + "+self", "LPIN+neigh\n", "LPIN+neigh/x",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_name_is_refused(wrong):
    with pytest.raises(InputError) as refused:
        grammar.read(wrong)
    assert refused.value.then == "ultrafolio scenario --words" and len(str(refused.value)) < 900


def test_names_of_random_words_are_refused_or_read_back():
    draw = random.Random(20261129)
    known = [*OBSTACLES, *HOW, *WHERE, *DOES, *MORE]
    read = 0
    for _ in range(4000):
        parts = [
            draw.choice(known) + draw.choice(["", "", f".{draw.choice(list(HOW))}"]) for _ in range(draw.randint(1, 4))
        ]
        typed = "+".join(parts)
        try:
            name = grammar.read(typed)
        except InputError:
            continue
        read += 1
        assert str(name) == typed and grammar.scenario(name).title == typed
    assert read > 10


# ---------------------------------------------------------------------------------------------------- commands
def test_the_command_prints_the_scenario_as_a_file(capsys, tmp_path):
    for name in ["LPIN.early+neigh", "LRU.other+self", "DIO.in+self+WB+BOOT.off", *list(BY_TEXT)[::40]]:
        code, out, _ = run(capsys, "scenario", name)
        assert code == 0 and tomllib.loads(out)["title"] == name
        file = tmp_path / "it.toml"
        file.write_text(out)
        assert scenario.read(file) == grammar.scenario(grammar.read(name))
        told = json.loads(run(capsys, "scenario", name, "--json")[1])
        assert told["name"] == name and told["scenario"] == tomllib.loads(out)


def test_the_command_prints_words_and_names(capsys):
    said = run(capsys, "scenario", "--words")[1].strip()
    assert said == text.words() and all(f"| {word} |" in said for word in [*OBSTACLES, *HOW, *WHERE, *DOES, *MORE])
    assert run(capsys, "scenario", "--all", "3")[1].split() == list(BY_TEXT)
    for wrong in ([], ["LPIN+neigh", "--words"], ["--words", "--json"], ["03-virtio"], ["LPIN+nigh"]):
        code, _, err = run(capsys, "scenario", *wrong)
        assert code == 2 and "Traceback" not in err
    assert "scenario" in _COMMANDS


def test_check_takes_a_name_as_it_takes_a_file(capsys):
    by_name = FORM.fullmatch(run(capsys, "check", "LPIN+neigh", "--policy", "whole-folio", "--brief")[1].strip())
    by_file = FORM.fullmatch(run(capsys, "check", "03-virtio", "--policy", "whole-folio", "--brief")[1].strip())
    assert by_name.group(1) == "LPIN+neigh" and by_name.group(2, 3, 4, 5, 6, 7) == by_file.group(2, 3, 4, 5, 6, 7)
    dotted = run(capsys, "check", "LPIN.early+neigh", "--policy", "split", "--brief")[1]
    assert FORM.fullmatch(dotted.strip()).group(1, 3) == ("LPIN.early+neigh", "Hangs")
    code, out, _ = run(capsys, "check", "LPIN.early+neigh", "--policy", "split")
    assert code == 1 and "ultrafolio check LPIN.early+neigh --policy split" in " ".join(out.split())
    linked = run(capsys, "check", "LPIN+neigh", "--policy", "split", "--link")[1].strip()
    assert FORM.fullmatch(run(capsys, "check", linked, "--brief")[1].strip()).group(1) == "LPIN+neigh"
    code, _, err = run(capsys, "check", "LPIN+nigh", "--policy", "split")
    assert code == 2 and "neigh" in err and "Traceback" not in err


def test_run_takes_a_name_and_the_short_form_as_it_takes_a_file(capsys, tmp_path):
    """The same simulation, whatever form says its scenario."""
    file = tmp_path / "mine.uf"
    file.write_text(run(capsys, "scenario", "LPIN+neigh", "--short")[1])
    typed = ("--policy", "whole-folio", "--duration-us", "400", "--brief")
    lines = [run(capsys, "run", form, *typed)[1].strip() for form in ("LPIN+neigh", file, "03-virtio")]
    found = [FORM.fullmatch(line) for line in lines]
    assert [line.group(1) for line in found] == ["LPIN+neigh", "mine", "03-virtio"]
    assert {line.group(3) for line in found} == {"Hangs"} and len({line.group(2, 4, 5, 6, 7, 8) for line in found}) == 1
    code, out, _ = run(capsys, "run", "LPIN.early+neigh", "--policy", "split", "--duration-us", "400")
    assert code == 1 and "reproduce: ultrafolio run LPIN.early+neigh --policy split" in " ".join(out.split())
    for typed, said in (
        (["LPIN+nigh"], "neigh"),
        (["LPIN+neigh", "--order", "2"], "its own memory"),
        (["no-such-name"], "no such file"),
        ([tmp_path / "none.uf"], "no such file"),
    ):
        code, out, err = run(capsys, "run", *typed)
        assert (code, out) == (2, "") and said in err and "Traceback" not in err


def test_run_takes_the_name_of_a_shipped_plan(capsys):
    typed = ("--workload", "disk", "--order", "3", "--duration-us", "100", "--json")
    by_name, by_file = (json.loads(run(capsys, "run", plan, *typed)[1]) for plan in ("seed", "sweeps/seed.toml"))
    assert by_name.pop("command") != by_file.pop("command") and by_name == by_file


def test_the_library_takes_a_name():
    assert api.Scenario.find("LPIN+neigh").title == "LPIN+neigh"
    assert api.run("LPIN+neigh", policy="whole-folio").hung
    assert api.check("LPIN+neigh", policy="whole-folio").worst.kind == "permanent"
    assert hash_of(api.Scenario.find("LPIN+neigh").story, find("split")) == hash_of(story("03-virtio"), find("split"))


def test_a_file_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LPIN+neigh").write_text(PATHS["01-direct-io"].read_text())
    assert names_find.found(tmp_path / "LPIN+neigh").title == story("01-direct-io").title
    assert names_find.stem("scenarios/03-virtio.toml") == "03-virtio"
    assert names_find.stem("LPIN.early+neigh") == "LPIN.early+neigh"
