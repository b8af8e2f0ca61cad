"""Every citation of a section or a case leads to one, and every link of a document to a file and a heading.

Forms of a citation: model.md §3.2, kernel §1.4, formats.md §3, also several ("§1.2 and §3", "§1.1, §1.2"); conformance
case 22, also several ("16, 17", "36 to 52").
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
KINDS = (".py", ".md", ".toml", ".proto", ".js", ".lua", ".c", ".h", ".yml", ".yaml", ".sh", ".sql", ".html", "uf")
NOT_OURS = ("src/ultrafolio/rpc/v1/", "tests/support/data/")
TEXTS = [name for name in TRACKED if name.endswith(KINDS) and not name.startswith(NOT_OURS)]
DOCUMENTS = [name for name in TEXTS if name.endswith(".md")]

SECTION = re.compile(r"(model\.md|formats\.md|kernel) ((?:§[\d.]*\d(?:,? and | to |, )?)+)")
CASE = re.compile(r"conformance case (\d+)((?:(?:, | and | to )\d+)*)")
LINK = re.compile(r"\]\(([^()\s]+)\)")
PRIVATE = re.compile(r"\b(?:MODEL|DESIGN|facts) (?:sections?|points?|cases?|§|\d)|kernel facts")
"""Citations of documents that are not in this repository."""


def plain(text):
    """A document without its blocks of code, whose lines that begin with # are no headings."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def headings(name):
    return re.findall(r"^#+ (.+?)\s*$", plain((ROOT / name).read_text()), re.MULTILINE)


def anchor(heading):
    """The fragment that a heading gets: lower case, letters, digits, `-` and `_`, a space becomes `-`."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def numbers(*names):
    return {m[1] for name in names for h in headings(name) if (m := re.match(r"(\d+(?:\.\d+)*)\.? ", h))}


def cases():
    return {int(n) for n in re.findall(r"^\| (\d+) \|", (ROOT / "docs/conformance.md").read_text(), re.MULTILINE)}


KERNEL = [name for name in DOCUMENTS if name.startswith("docs/kernel/")]
SECTIONS = {"model.md": numbers("docs/model.md"), "formats.md": numbers("docs/formats.md"), "kernel": numbers(*KERNEL)}
CASES = cases()


def lost(text):
    """The citations in a text that lead nowhere."""
    text = re.sub(r"\s+(?:#|//|--|\*)?\s*", " ", text)  # a citation may go on in the next line of a comment
    found = [m[0] for m in PRIVATE.finditer(text)]
    for where, signs in SECTION.findall(text):
        found += [f"{where} §{n}" for n in re.findall(r"§([\d.]*\d)", signs) if n not in SECTIONS[where]]
    for first, more in CASE.findall(text):
        found += [f"case {n}" for n in (first, *re.findall(r"\d+", more)) if int(n) not in CASES]
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_each_citation_has_its_section(name):
    if name != "tests/project/test_citations.py":
        assert lost((ROOT / name).read_text()) == []


def test_there_are_citations_of_each_document():
    texts = "\n".join((ROOT / name).read_text() for name in TEXTS if name != "tests/project/test_citations.py")
    assert {where for where, _ in SECTION.findall(texts)} == set(SECTIONS)
    assert len(SECTION.findall(texts)) > 40 and len(CASE.findall(texts)) >= 4
    assert set(range(1, 59)) == CASES


@pytest.mark.parametrize(
    "text",
    [
        "model.md §9.19",
        "model.md §3.2 and §12",
        "kernel §1.4, §2.9",
        "conformance case 16, 59",
        "kernel §1.4 and\n# kernel §8.7",
        "as MODEL section 2 says",
        "facts case 22",
        "DESIGN section 4",
    ],
)
def test_a_citation_that_leads_nowhere_is_found(text):
    assert len(lost(text)) == 1


def test_a_section_number_stands_once():
    for names in (["docs/model.md"], ["docs/formats.md"], KERNEL):
        found = [m[1] for name in names for h in headings(name) if (m := re.match(r"(\d+(?:\.\d+)*)\.? ", h))]
        assert len(found) == len(set(found)), names


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_link_leads_to_a_file_and_a_heading(name):
    for target in LINK.findall(plain((ROOT / name).read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {target}: no such file"
        if fragment and file.suffix == ".md":
            known = {anchor(h) for h in headings(file.resolve().relative_to(ROOT.resolve()))}
            assert fragment in known, f"{name}: {target}: no such heading; there are {sorted(known)}"


def test_the_index_names_every_document():
    index = (ROOT / "docs/README.md").read_text()
    named = {t.partition("#")[0] for t in LINK.findall(index)}
    there = {f.name for f in (ROOT / "docs").glob("*.md")} - {"README.md"} | {"kernel/README.md"}
    assert there <= named, there - named
    listed = (ROOT / "docs/kernel/README.md").read_text()
    assert all(f"({f.name})" in listed for f in (ROOT / "docs/kernel").glob("*.md") if f.name != "README.md")
