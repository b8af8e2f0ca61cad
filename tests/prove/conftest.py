"""The proof that the short tests look at: made once."""

import pytest

from proving import FEW_KINDS, ONE
from ultrafolio.model import policies
from ultrafolio.prove import all_but


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """(the proof of ONE with the kinds FEW_KINDS, the folder with its questions)"""
    pytest.importorskip("z3", reason="the extra `prove` is not installed")
    from ultrafolio.prove import judge
    from ultrafolio.prove.houdini import Tally

    folder = tmp_path_factory.mktemp("smt2")
    return judge.prove(policies.find(ONE), without=all_but(FEW_KINDS), tally=Tally(smt2=folder)), folder
