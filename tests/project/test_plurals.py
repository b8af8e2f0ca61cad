"""No message or table says "1 runs": a number that is put before a noun in a text goes through `nouns.plural`."""

import ast
import re
from pathlib import Path

import pytest

from ultrafolio.nouns import plural

ROOT = Path(__file__).parents[2]
NOUNS = re.compile(
    r"^ (?:\w+ )?(runs|cells|states|steps|folios|pages|touches|policies|scenarios|keys|files|lines"
    r"|workers|events|stalls|rows|words|requests|values|processes|points|entries|bytes|edges|chunks|segments"
    r"|devices|groups|records|stores|actors|regions|rounds|snapshots|systems|starts|times|calls|faults"
    r"|targets|switches|configurations|columns|names)\b"
)
BOUND = re.compile(r"[A-Z][A-Z_0-9]+")
SEVERAL = {
    "a text": {"name", "', '.join(map(str, sorted(some)))", "STAGES[stage]"},
    "a rate, or a ratio above 1.05": {"rates[1]", "summary.cells_per_second", "count.rate", "cost.uv_ratio"},
    "two or more where it is said": {
        "len(files)",
        "runs[-1]",
        "how_many",
        "len(self.devices)",
        "len(seen)",
        "len(self.seen)",
        "len(names)",
        "len(self.names)",
        "maps.snapshots",
        "enabled",
    },
    "none, or two or more": {"len(found)", "meta.cfg['pages'][0]"},
    "many where it is said": {"states", "len(values)", "len(text.encode())", "len(data)", "bound"},
}
"""What may stand before a plural as it is, and why."""


def said(file):
    """(line, expression, what follows it) of every number that stands before a plural noun in a text of a module."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    name = ast.unparse(value.value)
                    if NOUNS.match(str(text.value)) and not BOUND.fullmatch(name):
                        yield node.lineno, name, text.value


@pytest.fixture(scope="module")
def found():
    files = [file for folder in ("src", "services", "workers") for file in sorted((ROOT / folder).rglob("*.py"))]
    return [
        (f"{file.relative_to(ROOT)}:{line}: {{{name}}}{text[:40]}", name)
        for file in files
        for line, name, text in said(file)
    ]


def test_every_number_before_a_noun_goes_through_plural(found):
    several = set().union(*SEVERAL.values())
    assert not [where for where, name in found if name not in several]


def test_no_exception_is_without_its_text(found):
    assert set().union(*SEVERAL.values()) <= {name for _, name in found}


def test_the_scan_sees_a_number_before_a_noun(tmp_path):
    (tmp_path / "x.py").write_text("x = f\"{n} runs, {plural(m, 'run')}, {MOST} runs, {k} failed cells\"")
    assert [name for _, name, _ in said(tmp_path / "x.py")] == ["n", "k"]


@pytest.mark.parametrize(
    ("number", "words", "says"),
    [
        (1, ["run"], "1 run"),
        (0, ["run"], "0 runs"),
        (2, ["entry", "entries"], "2 entries"),
        (1, ["entry", "entries"], "1 entry"),
    ],
)
def test_a_number_with_its_noun(number, words, says):
    assert plural(number, *words) == says


def test_the_pages_say_so_too():
    """In the pages' own scripts: a number, then a plural."""
    for file in [*(ROOT / "src").rglob("*.js"), *(ROOT / "services").rglob("*.js")]:
        for name, noun in re.findall(r"\$\{([^{}]+)\}( (?:\w+ )?\w+)", file.read_text()):
            assert not NOUNS.match(noun) or name in ("most", "times", "MOST_ACTORS"), f"{file.name}: {name}{noun}"
