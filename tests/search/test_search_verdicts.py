"""The verdicts of the search: equal to those of check, for the policy that was asked and for those that share it."""

from pathlib import Path
from random import Random

import pytest

from asked_policies import checked, differences, drawn
from ultrafolio import shipped
from ultrafolio.check.verdicts.replay import NotCertified
from ultrafolio.errors import Defect
from ultrafolio.model.policies import find_any
from ultrafolio.names.find import found
from ultrafolio.search import space, table
from ultrafolio.search.asking import noted
from ultrafolio.search.asking.ask import FAILS, NOT_ASKED, PASSES, Answer, ask
from ultrafolio.search.asking.noted import Record
from ultrafolio.search.asking.system import Settings

SMALL = ("03-virtio", "10-iomap-no-writeback", "14-first-import", "21-unshare-beside-pin", "29-lru-other-cpu",
         "65-adapter-interrupts", "g01-to-private", "g07-own-batch", "g23-no-memory-for-the-folio")  # fmt: skip
"""Scenarios of both designs that plain Python explores at once."""


def test_verdicts_are_those_of_check():
    wrong, compared = differences(SMALL, 40, Random(3))
    assert not wrong
    assert compared > 60


@pytest.mark.slow
def test_verdicts_are_those_of_check_on_all_scenarios():
    wrong, compared = differences(shipped.names("scenarios"), 500, Random(4), sharing=2)
    assert not wrong
    assert compared > 1_000


def test_a_choice_that_is_not_noted_is_found(monkeypatch):
    """A reader that leaves out `large` and `refs` takes stories for those of other policies."""
    whole = noted.Noted._tested

    def tested(self, test, other):
        before = self._record.box
        result = whole(self, test, other)
        if self._at in left_out:
            self._record.box = before
        return result

    axes = {axis.name: axis for axis in space.of("s390").axes}
    left_out = {axes["large"].at, axes["refs"].at}
    monkeypatch.setattr(noted.Noted, "_tested", tested)
    with pytest.raises(NotCertified):
        differences(("03-virtio",), 8, Random(5))


def test_a_scenario_that_no_policy_of_the_start_shares():
    """The initial state depends on a choice: policies that start otherwise are not in the box."""
    story = found(Path("03-virtio"))
    here = Settings(space.of("s390"), story)
    values = here.space.values_of(find_any("split"), "split")
    box, _ = here.initial(here.space.bits(values), values)
    assert here.space.words(box) == {"large": ("split",)}


def test_what_a_machine_cannot_enforce_is_not_asked():
    story = found(Path("g01-to-private"))
    here = Settings(space.of(story.design), story)
    answer = ask(here, here.space.values_of(find_any("pkvm"), "pkvm"))
    assert answer.verdict == NOT_ASKED
    assert here.space.words(answer.box) == {"convert": ("by-guest",)}


def test_a_whole_table_has_the_verdicts_of_check():
    story = found(Path("g07-own-batch"))
    of = space.of(story.design)
    made = table.new(of)
    table.fill(made, story, of.distinct)
    assert (made.verdicts != 0).all()
    rng = Random(6)
    for values in [drawn(of, rng) for _ in range(30)]:
        verdict = made.verdicts[values]
        if verdict != NOT_ASKED:
            assert checked(story, values) == {PASSES: "holds", FAILS: "violated"}[verdict]


def test_answers_that_contradict_each_other_are_a_defect():
    of = space.of("guest_memfd")
    made = table.new(of)
    values = (0,) * len(of.axes)
    made.add(values, Answer(PASSES, of.full))
    with pytest.raises(Defect, match="contradict"):
        made.add(values, Answer(FAILS, of.bits(values)))


def test_a_choice_without_meaning_is_not_noted():
    """What ONLY_WHERE says: where another choice has another value, the rules read no value of it."""
    rng = Random(7)
    for design, large, names in (
        ("s390", ["direct", "refuse", "never"], ("03-virtio", "14-first-import", "10-iomap-no-writeback")),
        ("guest_memfd", ["none"], ("g20-merge-meets-a-walker", "g16-vfio-pin")),
    ):
        of = space.of(design)
        assert of.only_where
        here = {name: Settings(of, found(Path(name))) for name in names}
        box = of.box([("large", large)])
        for _ in range(12):
            answer = ask(here[rng.choice(names)], drawn(of, rng, box))
            assert not set(of.only_where) & set(of.words(answer.box))


def test_what_is_noted():
    record = Record({"pages": 4}, [("one", 0, (0, 1, 2)), ("two", 3, (0, 5))], (1, 0))
    record.begin()
    assert record.pages == 4
    assert record.one != 2
    assert record.box & 0b111 == 0b011
    assert record.two <= 3
    assert record.box & 0b11000 == 0b01000
    record.begin()
    assert record.one
    assert record.box & 0b111 == 0b110
    assert int(record.one) == 1
    assert record.box & 0b111 == 0b010
