"""What the tests of the judge share: the trees at hand, a tree made up here, and a world to ask."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ultrafolio.engine.load import functions
from ultrafolio.judge.build import Ask
from ultrafolio.judge.starts import Doing, build
from ultrafolio.judge.world import World
from ultrafolio.model.policies import find

RULES = SimpleNamespace(**functions(lambda function: function))
WHERE = Path(os.environ.get("KERNEL_TREES", "/usr/src"))
TREES = [WHERE / f"linux-source-{version}" for version in ("6.1", "6.12")]
trees = pytest.mark.parametrize(
    "tree",
    [pytest.param(tree, marks=pytest.mark.skipif(not (tree / "mm/gup.c").is_file(), reason=f"no {tree.name} here"))
     for tree in TREES],
    ids=lambda tree: tree.name,
)  # fmt: skip


def made_up(folder, makefile="VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 3\n", uv=""):
    (folder / "arch/s390/kernel").mkdir(parents=True)
    (folder / "Makefile").write_text(makefile)
    (folder / "arch/s390/kernel/uv.c").write_text(uv)
    return str(folder)


def world(start, operation="import"):
    watched = build(start, find("linux-6.12"), [Doing(operation, start.page)])
    return World(watched.state, RULES), watched


def answer(on, question, page=0, more=0):
    return on.answer(0, Ask(question, page, more))
