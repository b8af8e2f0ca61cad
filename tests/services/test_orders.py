"""Orders to long-term pins, adapter interrupts and the host's accesses, in sequence, and to I/O that never ends."""

import time

import pytest

from cluster_driver import DONE, FATAL, WAITS, Driven, same_as_interpreted
from running_cluster import running
from ultrafolio.errors import InputError
from ultrafolio.model import layout
from ultrafolio.model.layout import READ, WRITE

PUBLIC = b"a word for the host, and for all to read"
VCPU = {"touch": [0, 1], "share": [0, 1], "unshare": [0, 1], "starts": 255}
FOLIO = {"memory": {"folios": [1], "state": ["shared", "secure"]}, "vcpu": [VCPU]}
PAGES = {"folios": [1, 0, 0], "state": ["shared", "secure", "secure", "shared"]}
EVERYBODY = {
    "memory": PAGES, "vcpu": [{"share": [1, 2], "unshare": [3], "touch": [0, 1], "starts": 9},
                              {"after": "access 0", "touch": [1]}],
    "virtio": [{"page": 0, "after": "interrupt"}, {"page": 2}], "reclaim": [{"page": [0, 1]}], "reboot": [{}],
    "pin": [{"page": 2, "pages": 2}], "interrupt": [{"page": 3}, {"page": 0, "after": "pin"}],
    "access": [{"read": [0, 1], "starts": 9}, {"write": [0, 3], "after": "access 0", "starts": 9}],
}  # fmt: skip
NEVER = {
    "memory": PAGES, "vcpu": [{"after": "disk 1", "touch": [0, 1]}, {"unshare": [0], "touch": [2]}],
    "disk": [{"page": 0, "completes": False}, {"page": 3}], "access": [{"read": [1, 2], "write": [3], "starts": 9}],
    "writeback": [{"page": [2], "completes": False}, {"page": [0], "after": "access"}],
}  # fmt: skip
"""A disk and a writeback whose I/O never completes."""


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("o")) as where:
        yield where


@pytest.fixture
def lab(where):
    lab = Driven(where)
    yield lab
    lab.close()


def steps(answer):
    return [f"{step.name} {step.word}" for step in answer.steps]


@pytest.mark.parametrize("policy", ["per-page", "whole-folio", "linux-6.18", "linux-7.2"])
@pytest.mark.parametrize("tables", [EVERYBODY, NEVER], ids=["everybody", "never"])
def test_pins_interrupts_and_accesses_do_what_the_interpreter_does(lab, tables, policy):
    for seed in range(2):
        same_as_interpreted(lab, "mine", policy, seed, tables)


def test_the_host_reads_and_writes_by_orders(lab):
    """Its write to a shared page is what the guest reads then; a secure page is made accessible first."""
    lab.lay("mine", "per-page", {**FOLIO, "access": [{"read": [0, 1], "write": [0, 1], "starts": 9}]})
    lab.touch(0, 0, data=PUBLIC)
    assert steps(lab.start(1, 0)) == ["access-start OK", "access-try DONE"]
    assert lab.touch(0, 0, length=len(PUBLIC)).data == PUBLIC
    assert steps(lab.start(1, 0, op=WRITE))[-1] == "access-try DONE"
    assert lab.touch(0, 0, length=20).data == b"\xff" * 16 + PUBLIC[16:20]
    told = lab.start(1, 1, op=READ)
    assert told.outcome == DONE and "accessible-export OK" in steps(told) and steps(told)[-1] == "access-try DONE"
    assert lab.touch(0, 1).outcome == DONE, "what was exported and only read comes back"
    assert lab.start(1, 1, op=WRITE).outcome == DONE and lab.touch(0, 1).outcome == FATAL
    with pytest.raises(InputError) as error:
        lab.start(1, 0, op=layout.SHARE)
    assert (error.value.reason, error.value.value) == ("NO_SUCH_OPERATION", "2")


def test_an_order_before_its_turn_is_refused_with_the_reason(lab):
    lab.lay(
        "mine",
        "per-page",
        {
            **FOLIO,
            "vcpu": [{"after": "access"}],
            "virtio": [{"page": 1}],
            "access": [{}],
            "lru": [{"after": "virtio", "page": [0]}],
        },
    )
    said = {}
    for actor, order in enumerate((lab.touch, lab.configure, lab.start)):
        with pytest.raises(InputError) as error:
            order(actor, 1)
        said[actor] = error.value.reason, error.value.allowed
    assert said == {
        0: ("NOT_ENABLED", "once actor 3 has finished"),
        1: ("NOT_ENABLED", "pages that the guest shares"),
        2: ("NOT_ENABLED", "once actor 1 has finished"),
    }
    assert lab.start(3, 0).outcome == DONE and lab.touch(0, 1).outcome == DONE


def test_a_disk_that_never_answers_keeps_its_caller_until_the_deadline(lab):
    lab.lay(
        "mine",
        "per-page",
        {**FOLIO, "disk": [{"page": 0, "completes": False}], "writeback": [{"page": [0], "completes": False}]},
    )
    for order in (lab.direct_io, lab.start):
        begun = time.monotonic()
        answer = order(1 if order == lab.direct_io else 2, 0, timeout=1)
        assert answer.outcome == WAITS and not answer.HasField("wait") and time.monotonic() > begun + 0.5
    assert lab.state().io["flying"].tolist() == [1, 0] and lab.state().mm["writeback"][0] == layout.WRITING
