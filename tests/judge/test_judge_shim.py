"""Each primitive of the judge's shim (docs/kernel), the events of a step, and the starts."""

from dataclasses import replace

import pytest

from judged import answer, world
from ultrafolio.judge.build import questions
from ultrafolio.judge.starts import Start, starts
from ultrafolio.judge.watch import events, joined
from ultrafolio.judge.world import World
from ultrafolio.model.layout import ANON, EXPORTED, IOMAP, MAPPED, SECURE, SHARED, SHMEM, UNMAPPED, WRITING


# ------------------------------------------------------------------- each primitive of the shim (docs/kernel)
def test_every_question_has_a_meaning():
    assert len(set(questions())) == len(questions())
    for name in questions():
        assert callable(getattr(World, name)), name


def test_trylock_and_lock():
    on, _ = world(Start())
    assert answer(on, "trylock") == 1 and answer(on, "trylock") == 0
    assert answer(on, "lock") is None
    answer(on, "unlock")
    assert answer(on, "lock") == 1


def test_writeback_is_waited_for():
    on, _ = world(Start(writeback=WRITING))
    assert answer(on, "writeback") == 1 and answer(on, "wait_writeback") is None
    answer(on, "end_writeback")
    assert answer(on, "writeback") == 0 and answer(on, "wait_writeback") == 0
    answer(on, "start_writeback")
    assert answer(on, "writeback") == 1


@pytest.mark.parametrize(("backing", "order", "count"), [(ANON, 0, 1), (SHMEM, 0, 2), (ANON, 1, 2), (SHMEM, 1, 4)])
def test_a_count_is_mappings_and_cache_and_others(backing, order, count):
    on, _ = world(Start(backing=backing, order=order))
    assert answer(on, "refs") == count and answer(on, "mapcount") == 1 << order
    answer(on, "get")
    assert answer(on, "refs") == count + 1
    answer(on, "put")
    assert answer(on, "pin") == 1 and answer(on, "refs") == count + 1 and answer(on, "pinned") == 1
    answer(on, "unpin")
    assert answer(on, "refs") == count and answer(on, "pinned") == 0


def test_freeze_matches_exactly_and_refuses_a_pin():
    on, _ = world(Start())
    assert answer(on, "freeze", more=1) == 0 and answer(on, "freeze", more=2) == 1
    assert answer(on, "pin") == 0
    answer(on, "unfreeze")
    assert answer(on, "pin") == 1 and answer(on, "freeze", more=2) == 0


def test_drains_of_one_cpu_and_of_all():
    for batch, own in (("batch of this CPU", 0), ("batch of another CPU", 1)):
        on, _ = world(Start(references=batch))
        answer(on, "drain_own")
        assert on.folio(0).refs == own
        answer(on, "drain_all")
        assert on.folio(0).refs == 0


def test_the_bit():
    on, _ = world(Start())
    assert answer(on, "test_bit") == 0
    answer(on, "set_bit")
    assert answer(on, "test_bit") == 1
    answer(on, "clear_bit")
    assert answer(on, "test_bit") == 0


@pytest.mark.parametrize(
    ("uv", "command", "code", "after"),
    [
        (EXPORTED, 0x200, 0, SECURE),
        (SECURE, 0x201, 0, EXPORTED),
        (SHARED, 0x341, 0, 3),
        (SECURE, 0x341, 1, SECURE),
        (3, 0x342, 0, SECURE),
        (0, 0x342, 1, 0),
        (SECURE, 0x202, 0, 0),
    ],
)
def test_calls_are_the_models_own(uv, command, code, after):
    on, _ = world(Start(uv=uv, arch=1))
    assert answer(on, "call", more=command) == code
    assert on.state.uv[0].state == after


def test_the_table_lock_keeps_others_out():
    on, _ = world(Start())
    assert answer(on, "table_lock") == 0 and answer(on, "table_lock") is None
    on.table = 1
    for question in ("fault", "clean", "unmap_split"):
        assert answer(on, question) is None, question
    answer(on, "table_unlock")
    assert answer(on, "table_lock") == 0


def test_entries():
    on, _ = world(Start(writable=0))
    assert answer(on, "entry") == 1
    assert answer(on, "fault") == 0 and answer(on, "entry") == 1
    assert answer(on, "fault", more=1) == 0 and answer(on, "entry") == 3
    assert answer(on, "clear_entry") == 3 and answer(on, "entry") == 0 and answer(on, "mapped") == 0
    answer(on, "restore_entry")
    assert answer(on, "entry") == 3 and answer(on, "mapped") == 1
    answer(on, "clean")
    assert answer(on, "entry") == 1


def test_a_fault_of_an_iomap_file_is_dirty_and_a_release_refused():
    on, _ = world(Start(backing=IOMAP, present=UNMAPPED))
    assert answer(on, "release") == 1 and answer(on, "dirty_file") == 1 and answer(on, "in_file") == 1
    answer(on, "fault")
    assert on.state.pt[0].present == MAPPED and answer(on, "entry") == 1 and answer(on, "release") == 1
    answer(on, "fault", more=1)
    assert answer(on, "entry") == 3 and answer(on, "release") == 0


def test_a_split_unmaps_freezes_and_parts():
    on, _ = world(Start(order=1))
    assert (answer(on, "large"), answer(on, "pages"), answer(on, "head", 1)) == (1, 2, 0)
    answer(on, "get")
    answer(on, "unmap_split")
    assert answer(on, "freeze", more=3) == 1
    answer(on, "split")
    assert (answer(on, "large"), answer(on, "head", 1), answer(on, "refs", 1)) == (0, 1, 2)
    on.parted.add(0)
    answer(on, "remap")
    assert on.parted == set()


def test_a_swap_out_is_refused_while_referenced_or_mapped():
    away = Start(present=UNMAPPED)
    for start, wanted in ((away, True), (Start(), False), (replace(away, references="pin"), False)):
        on, _ = world(start)
        assert bool(answer(on, "swap_out")) is wanted


def test_answers_about_the_system():
    on, _ = world(Start(backing=ANON))
    assert answer(on, "anon") == 1 and answer(on, "in_file") == 0 and answer(on, "swapcache") == 0
    assert answer(on, "guests") == 1 and answer(on, "owner_moves") == 0
    answer(on, "late")
    assert on.was_late == {0}


# ---------------------------------------------------------------------------------------------- events
def test_events_of_a_step():
    on, watched = world(Start())
    watched.start()
    answer(on, "trylock")
    answer(on, "writeback")
    answer(on, "freeze", more=2)
    answer(on, "set_bit")
    answer(on, "call", more=0x200)
    assert events(watched.stop()) == [
        "lock folio 0",
        "folio 0 in writeback? no",
        "freeze folio 0",
        "set the bit of page 0",
        "call for page 0: NON_SECURE -> SECURE",
    ]


def test_a_freeze_thawed_at_once_is_none():
    assert joined(["freeze folio 0", "thaw folio 0", "a", "a", "freeze folio 0", "b"]) == ("a", "freeze folio 0", "b")


def test_starts_are_distinct():
    every = list(starts())
    assert len(every) == len(set(every)) and set(starts(False)) <= set(every)
