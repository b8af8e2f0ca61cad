"""The lines of the kernel's C: the worst end decides, and what the judge cannot tell is Unknown."""

from collections import Counter

import pytest
from click.testing import CliRunner

from judged import trees
from test_observation import FORM
from ultrafolio.cli import cli
from ultrafolio.errors import InputError
from ultrafolio.judge.observed import Seen, line, question
from ultrafolio.judge.runs import WAYS
from ultrafolio.judge.starts import Start
from ultrafolio.judge.verdict import NAMED
from ultrafolio.model.layout import WRITING
from ultrafolio.model.policies import find

PAIR = ("import", "pin")
HELD = Start(references="pin"), Start(locked=1), Start(writeback=WRITING)


def told(*ends, start=None, differs=False):
    return Seen(PAIR, start or Start(), Counter(ends), differs)


def found(one):
    return FORM.fullmatch(line(one, "secure", "linux-6.12.117", "0" * 16))


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([("done", "done"), ("done", "refused")], ("Holds", "2", "2", "-")),
        ([("done", "done"), ("again", "done")], ("Waits", "1", "2", "import0:again")),
        ([("again", "done"), ("done", "late")], ("Unsafe", "1", "2", "pin1:late")),
        ([("fatal", "done"), ("waits", "done"), ("done", "done")], ("Fatal", "1", "3", "import0:fatal")),
        ([("done", "waits"), ("again", "done")], ("Unknown", "1", "2", "pin1:waits")),
        ([("done", "skipped")], ("Unknown", "1", "1", "pin1:skipped")),
        ([], ("Unknown", "0", "0", "-")),
    ],
)
def test_the_worst_end_decides(ends, said):
    assert found(told(*ends)).group(3, 4, 5, 6) == said


@pytest.mark.parametrize("start", HELD, ids=str)
def test_a_refusal_beside_a_foreign_holder_is_unknown(start):
    refused = told(("again", "done"), start=start)
    assert found(refused).group(3, 6) == ("Unknown", "import0:again")
    assert found(told(("done", "done"), start=start)).group(3) == "Holds"


def test_an_end_that_the_rules_lack_is_unknown():
    assert found(told(("done", "done"), differs=True)).group(3, 5) == ("Unknown", "1")


def test_equal_hashes_are_the_same_question():
    lines = [line(told(start=start), "x", "linux-6.12", asked) for start in NAMED.values() for asked in ("a", "b")]
    assert len({FORM.fullmatch(one).group(7) for one in lines}) == 2 * len(NAMED)
    asked = {question(text, find(policy)) for text in ("int a;", "int b;") for policy in ("split", "per-page")}
    assert len(asked) == 4


@pytest.mark.parametrize("also", ["--alone", "--every", "--json", "--markdown"])
def test_brief_and_another_form_are_refused(also):
    done = CliRunner().invoke(cli, ["judge", "--tree", "nowhere", "--brief", also], standalone_mode=False)
    assert isinstance(done.exception, InputError) and done.exception.value == also


@trees
def test_a_tree_has_a_line_a_system(tree):
    done = CliRunner().invoke(cli, ["judge", "--tree", str(tree), "--brief"], standalone_mode=False)
    assert done.return_value == 0, done.output
    lines = [FORM.fullmatch(text) for text in done.output.splitlines()]
    assert all(lines) and len({found.group(1) for found in lines}) == len(lines) > 100
    assert len({found.group(7) for found in lines}) == len(lines)
    by_name = {found.group(1): found.group(3, 6) for found in lines}
    assert by_name["import@secure"] == ("Holds", "-")
    assert by_name["import@secure-and-pin"] == ("Unknown", "import0:again")
    assert by_name["unshare+pin@shared"] == ("Waits", "unshare0:again")
    operations = {word for name in by_name for word in name.partition("@")[0].split("+")}
    assert operations <= set(WAYS) and len(operations) == 6
