"""What the tables say together, on made tables: rows, cores, cures and fronts against a plain count."""

import itertools
from pathlib import Path
from random import Random

import numpy as np
import pytest

from ultrafolio.errors import InputError
from ultrafolio.model import policies
from ultrafolio.names.find import found as found_scenario
from ultrafolio.search import files, space, table
from ultrafolio.search.answer import Found
from ultrafolio.search.asked import Asked
from ultrafolio.search.asking.ask import FAILS, NOT_ASKED, PASSES, UNKNOWN, Answer
from ultrafolio.search.rows import rows

GMEM = space.of("guest_memfd")
S390 = space.of("s390")
COUNTED = int(GMEM.distinct.sum())


def box(of, *said):
    return of.box([(word.partition("=")[0], word.partition("=")[2].split("|")) for word in said])


def made(of, *failing, other=PASSES):
    """A table in which the policies of these boxes fail."""
    verdicts = np.full(of.shape, other, np.int8)
    for some in failing:
        verdicts[of.where(some)] = FAILS
    answers = [((0,) * len(of.axes), Answer(FAILS, some)) for some in failing]
    return table.Table(of, verdicts, answers)


def found_of(of, tables, within=None, aside=()):
    within = of.full if within is None else within
    wanted = np.zeros(of.shape, bool)
    wanted[of.where(within)] = True
    names = [f"scenario {n}" for n in range(len(tables))]
    return Found(of, names, tables, wanted & of.distinct, within, aside)


def test_the_spaces():
    assert GMEM.size == 10_368
    assert COUNTED == 8_640
    assert S390.size == 419_904
    assert int(S390.distinct.sum()) == 139_968


def test_every_policy_has_a_name_that_finds_it():
    rng = Random(1)
    for of in (S390, GMEM):
        for _ in range(50):
            values = tuple(rng.randrange(size) for size in of.shape)
            name = space.policy_name(of.policy(values))
            assert of.counted[of.values_of(policies.find_any(name), name)] == of.counted[values]
    assert space.policy_name(policies.find_any("split")) == "split"
    assert space.policy_name(policies.find_any("import-lock,large=direct")) == "import-lock,large=direct"


def test_a_name_with_changes():
    policy = policies.find_any("split,refs=page,split_writeback=2")
    assert (policy.large, policy.refs, policy.split_writeback) == ("split", "page", 2)
    for name, said in (("split,refs=none", "page, folio"), ("split,size=2", "size"), ("nothing,refs=page", "nothing")):
        with pytest.raises(InputError, match=said):
            policies.find_any(name)


def test_boxes():
    one = box(S390, "large=split|direct", "refs=page")
    assert S390.words(one) == {"refs": ("page",), "large": ("direct", "split")}
    assert S390.are_apart(one, box(S390, "refs=folio"))
    assert not S390.are_apart(one, box(S390, "track=page"))
    parts = [one, *S390.without(S390.full, one)]
    count = np.zeros(S390.shape, np.int8)
    for part in parts:
        count[S390.where(part)] += 1
    assert (count == 1).all()


@pytest.mark.parametrize(
    "said, allowed", [("size=1", "track"), ("refs=none", "page"), ("split_writeback=3", "0, 1, 2")]
)
def test_an_unknown_requirement_is_refused(said, allowed):
    with pytest.raises(InputError, match=allowed):
        box(S390, said)


def test_what_nobody_passes_is_set_aside():
    found = found_of(GMEM, [made(GMEM, GMEM.full), made(GMEM, box(GMEM, "drain=none"))])
    assert [one.scenario for one in found.nobody_passes()] == ["scenario 0"]
    assert found.surviving.sum() == COUNTED // 2


def test_rows_cover_the_survivors_exactly():
    rng = Random(2)
    for of in (GMEM, GMEM, S390):
        failing = [sum(rng.choice([axis.mask, axis.bit(0)]) for axis in of.axes) for _ in range(2)]
        found = found_of(of, [made(of, *failing)])
        chosen = found.table_of(found.surviving)
        count = np.zeros(of.shape, bool)
        for covered, number in rows(of, chosen, found.within):
            where = of.where(covered)
            assert chosen[where].all()
            assert number == int(of.distinct[where].sum())
            count[where] = True
        assert (count >= chosen & of.distinct).all()


def plain_cores(found, size):
    """Every smallest partial assignment of at most `size` choices that no survivor has, by trying all."""
    of, alive = found.space, found.table_of(found.surviving)
    cores = []
    for number in range(size + 1):
        for some in itertools.combinations(range(len(of.axes)), number):
            for values in itertools.product(*(of.axes[n].values_in(found.within) for n in some)):
                core = dict(zip(some, values, strict=True))
                if any(one.items() <= core.items() for one in cores):
                    continue
                index = tuple(core.get(n, slice(None)) for n in range(len(of.axes)))
                if not alive[index].any():
                    cores.append(core)
    return cores


def test_cores_are_all_smallest_ones():
    failing = [box(GMEM, "drain=none", "hold=mapped"), box(GMEM, "large=none", "stuck=kept", "iommu=first"),
               box(GMEM, "on_exit=convert")]  # fmt: skip
    found = found_of(GMEM, [made(GMEM, *failing[:2]), made(GMEM, failing[2])])
    said = [GMEM.words(core.box) for core in found.cores()]
    assert said == [GMEM.words(one) for one in (failing[2], failing[0], failing[1])]
    assert len(plain_cores(found, 3)) == 3
    core = found.cores()[1]
    assert core.policies == COUNTED // 6
    assert [(one.scenario, one.policies) for one in core.fails] == [("scenario 0", core.policies)]
    fails = core.fails[0].example
    assert GMEM.bits(fails) & core.box == GMEM.bits(fails)


def test_choices_without_meaning_make_no_core():
    found = found_of(S390, [made(S390, box(S390, "large=split", "after_split=retry"))])
    assert [S390.words(core.box) for core in found.cores()] == [{"large": ("split",), "after_split": ("retry",)}]


def test_a_core_is_shown_where_its_choice_has_a_meaning():
    found = found_of(S390, [made(S390, box(S390, "large=direct|refuse|never"), box(S390, "after_split=retry"))])
    start = S390.values_of(policies.find_any("split"), "split")
    core = next(core for core in found.cores(start) if S390.words(core.box) == {"after_split": ("retry",)})
    assert core.policies == int(S390.distinct[S390.where(box(S390, "large=split", "after_split=retry"))].sum())
    assert space.policy_name(S390.policy(core.fails[0].example)) == "split,after_split=retry"


def test_cures_are_the_smallest_changes():
    start = GMEM.values_of(policies.find_any("gmem-7.4"), "gmem-7.4")
    failing = box(GMEM, "drain=once", "large=none")
    found = found_of(GMEM, [made(GMEM, failing), made(GMEM, box(GMEM, "drain=none"))])
    assert found.failed_by(start) == [0]
    cures = [(GMEM.policy(cure.values), cure.worse) for cure in found.cures(start, 0)]
    assert {(policy.drain, policy.large): worse for policy, worse in cures} == {
        ("none", "none"): ("scenario 1",), ("once", "split-after-store"): (), ("once", "split-before-store"): (),
    }  # fmt: skip
    assert {GMEM.policy(cure.values).large for cure in found.cures(start, None)} == {
        "split-after-store", "split-before-store"}  # fmt: skip


def test_the_least_that_policies_fail():
    tables = [made(GMEM, box(GMEM, "drain=none")), made(GMEM, box(GMEM, "drain=once")),
              made(GMEM, box(GMEM, "drain=once", "stuck=kept"))]  # fmt: skip
    found = found_of(GMEM, tables)
    assert not found.surviving.any()
    assert [names for names, _ in found.front()] == [[0], [1]]
    assert not found.cores() or not found.surviving.any()
    assert found_of(GMEM, tables, aside=["scenario 0"]).surviving.sum() == COUNTED // 2


def test_a_limit_leaves_policies_undecided():
    found = found_of(GMEM, [made(GMEM, box(GMEM, "drain=none"), other=UNKNOWN)])
    assert not found.surviving.any()
    assert found.undecided == COUNTED // 2


def test_a_scenario_that_refuses_a_policy_says_nothing_of_it():
    found = found_of(GMEM, [made(GMEM, box(GMEM, "drain=none"), other=NOT_ASKED), made(GMEM, box(GMEM, "stuck=kept"))])
    assert [one.scenario for one in found.nobody_passes()] == ["scenario 0"]
    assert found.surviving.sum() == COUNTED // 2


def test_stored_tables(tmp_path):
    path, answers = tmp_path / "one.search", [((0,) * len(GMEM.axes), Answer(FAILS, GMEM.full, "name", 7))]
    files.write(path, "key", "one", answers)
    assert files.read(path, "key", GMEM) == answers
    assert files.read(path, "other", GMEM) == []
    assert files.read(tmp_path / "none.search", "key", GMEM) == []
    whole = path.read_bytes()
    path.write_bytes(whole[:50] + b"x" + whole[51:])
    with pytest.raises(InputError, match="checksum"):
        files.read(path, "key", GMEM)
    path.write_bytes(whole[:-1])
    assert files.read(path, "key", GMEM) == []


def test_only_policies_that_the_machine_can_enforce_are_wanted():
    of = Asked("guest_memfd", [("g01-to-private", found_scenario(Path("g01-to-private")))], GMEM.full)
    assert int(of.wanted.sum()) == 5_760
