"""The shared state: rules run against a store agree with the interpreter, and the validator accepts what they did."""

from pathlib import Path

import pytest

from store_cases import Stored
from ultrafolio.conformance.suite import CASES, Interpreter, agree, build
from ultrafolio.model.layout import ACCESS, INTERRUPT, PIN, READ, SWAPPED, UNMAPPED, W_FROZEN, WRITE, pack
from ultrafolio.model.policies import PRESETS, find
from ultrafolio.model.scenario import read, system
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.validate import validate

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.toml"))
PAGES = {"folios": [1, 0, 0], "state": ["shared", "secure", "secure", "shared"]}
EVERYBODY = {
    **PAGES, "vcpu": [{"share": [1, 2], "unshare": [0, 3], "touch": [0, 1, 2, 3], "starts": 200}],
    "virtio": [{"page": 0, "after": "interrupt", "starts": 90}], "reclaim": [{"starts": 90}], "reboot": [{"starts": 9}],
    "lru": [{"after": "access 1", "starts": 90}], "pin": [{"page": 2, "pages": 2, "starts": 90}],
    "interrupt": [{"page": 3, "starts": 200}],
    "access": [{"read": [0, 1, 2], "starts": 200}, {"write": [0, 2, 3], "after": "pin", "starts": 200}],
}  # fmt: skip
NEVER = {
    **PAGES, "vcpu": [{"after": "disk 1", "unshare": [3], "touch": [0, 1], "starts": 200}],
    "disk": [{"page": 0, "completes": False}, {"page": 3, "starts": 90}],
    "writeback": [{"page": [2], "completes": False}, {"page": [0, 3], "after": "access", "starts": 90}],
    "access": [{"starts": 200}],
}  # fmt: skip
"""A disk and a writeback of which the I/O never completes."""
POLICIES = ("per-page", "whole-folio", "folio-bitmap-pins", "linux-6.12", "linux-6.18", "linux-7.0", "linux-7.2")


@pytest.fixture
def engine(tmp_path):
    memory = Memory()
    return Stored({role: MemoryStore(memory, role) for role in ("ultravisor", "host", "guest", "admin")}, tmp_path)


def accepted(engine):
    verdict = validate(engine.stores["admin"].history(engine.group), engine.state)
    assert verdict.accepted, (verdict.at, verdict.why)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(engine, case):
    case.run(engine)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_scenario(engine, file, preset):
    agree(Interpreter(), engine, system(read(file), PRESETS[preset][1]), 3, 40)
    accepted(engine)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("tables", [EVERYBODY, NEVER], ids=["everybody", "never"])
def test_pins_interrupts_and_accesses_in_an_order(engine, tables, policy):
    for seed in range(4):
        agree(Interpreter(), engine, build(find(policy), **tables), seed, 150)
        accepted(engine)


def test_a_host_that_writes_a_page_that_is_swapped_out_writes_what_comes_back(engine):
    """The page is back in memory before it is written to: the rest of it is as it was."""
    made = build("per-page", [0], ["exported"], reclaim=[{}], access=[{"write": [0]}])
    engine.load(made.state)
    before = engine.pages.content(0)
    while engine.step(0, 1, 0) > 0 and engine.state().pt["present"][0] != SWAPPED:
        continue
    assert engine.state().pt["present"][0] == SWAPPED
    assert engine.step(1, WRITE, 0) > 0 and engine.step(1, 0, 0) > 0
    assert engine.state().mm["altered"][0] and engine.pages.content(0) == b"\xff" * 16 + before[16:]
    accepted(engine)


def test_an_access_that_must_wait_for_the_thaw_changes_nothing(engine):
    made = build("whole-folio", [1], access=[{"read": [0]}])
    made.state.pt["present"][0], made.state.mm["locked"][0], made.state.mm["frozen"][0] = UNMAPPED, 1, 1
    for one in (Interpreter(), engine):
        one.load(made.state)
        assert one.step(0, READ, 0) > 0
        before = pack(one.state())
        assert one.step(0, 0, 0) == W_FROZEN and pack(one.state()) == before, one.name


def test_every_kind_acts_in_these():
    kinds = {int(kind) for tables in (EVERYBODY, NEVER) for kind in build("per-page", **tables).state.who["kind"]}
    assert {PIN, INTERRUPT, ACCESS} <= kinds
