"""docs/findings.md: each command says what the document says, and each finding is marked as not yet confirmed."""

import re
import shlex
from pathlib import Path

import pytest

from memfd_cases import STORIES, system
from memfd_opinion import CLASSES, opinion
from plain_graph import explored
from ultrafolio.model.designs import GUEST_MEMFD

TEXT = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()
COMMANDS = re.findall(r"^\$ ultrafolio check (.*)\nexit (\d): (.*)$", TEXT, re.M)


@pytest.mark.parametrize(("words", "code", "said"), COMMANDS)
def test_a_finding_is_found(words, code, said):
    """Over the plain graph: the property that the document names is broken, or none is; or a wait is of the class that
    it names."""
    name, *options = shlex.split(words)
    given = dict(zip(options[::2], options[1::2], strict=True))
    machine = given.get("--machine", STORIES[name].machine)
    made = system(name, given["--policy"], machine)
    if said in CLASSES:
        assert opinion(made).worst() == ("violated", said) and code == "1"
        return
    broke = {e.broke for edges in explored(made).edges for e in edges} - {0}
    properties = [GUEST_MEMFD.properties[number] for number in broke]
    assert bool(broke) == (code == "1"), properties
    assert said == "holds" or any(said in one for one in properties), properties


def test_each_finding_is_to_be_confirmed():
    parts = TEXT.split("\n## ")[1:]
    assert len(parts) == 6 and all("To be confirmed." in part for part in parts)
    assert all(("$ ultrafolio check" in part) != ("Shortest start" in part) for part in parts)


def test_each_difference_from_the_kernels_c_is_on_its_page():
    """The shortest start that a finding names is that of docs/judged-guest-memfd.md, and no difference is left out."""
    page = (Path(__file__).parents[2] / "docs" / "judged-guest-memfd.md").read_text()
    starts = re.findall(r"Shortest start: `(.*?)`", TEXT.replace("\n", " "))
    assert sorted(starts) == sorted(re.findall(r"^```text\n(.*)$", page, re.M))
