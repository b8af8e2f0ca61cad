"""The proofs that the short tests look at: made once."""

import pytest

from proving import FEW_HUGE, FEW_KINDS, FEW_MEMFD, ONE
from ultrafolio.model import policies
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.prove import all_but


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """(the proof of ONE with the kinds FEW_KINDS, the folder with its questions)"""
    pytest.importorskip("z3", reason="the extra `prove` is not installed")
    from ultrafolio.prove import judge
    from ultrafolio.prove.houdini import Tally

    folder = tmp_path_factory.mktemp("smt2")
    return judge.prove(policies.find(ONE), without=all_but(FEW_KINDS), tally=Tally(smt2=folder)), folder


@pytest.fixture(scope="session")
def kept_memfd(tmp_path_factory):
    """The same of gmem-7.4 on the machine software, with the kinds FEW_MEMFD."""
    pytest.importorskip("z3", reason="the extra `prove` is not installed")
    from ultrafolio.prove import judge
    from ultrafolio.prove.houdini import Tally
    from ultrafolio.prove.memfd.configuration import configuration
    from ultrafolio.prove.rules import unchanged

    folder = tmp_path_factory.mktemp("smt2-memfd")
    proof = judge.prove_under(
        configuration(policies.find_any("gmem-7.4"), "software"), without=all_but(FEW_MEMFD, GUEST_MEMFD),
        rules=unchanged(GUEST_MEMFD), numbers=tuple(range(1, len(GUEST_MEMFD.properties))), tally=Tally(smt2=folder),
    )  # fmt: skip
    return proof, folder


@pytest.fixture(scope="session")
def kept_huge():
    """The proof of gmem-hugetlb-2025-05 with huge pages on the machine software, with the kinds FEW_HUGE."""
    pytest.importorskip("z3", reason="the extra `prove` is not installed")
    from ultrafolio.prove import judge
    from ultrafolio.prove.memfd.configuration import configuration
    from ultrafolio.prove.rules import unchanged

    return judge.prove_under(
        configuration(policies.find_any("gmem-hugetlb-2025-05"), "software", huge=True),
        without=all_but(FEW_HUGE, GUEST_MEMFD), rules=unchanged(GUEST_MEMFD),
        numbers=tuple(range(1, len(GUEST_MEMFD.properties))),
    )  # fmt: skip
