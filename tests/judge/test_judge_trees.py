"""The judge's results for trees that lack a function, have a fix, or were changed."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from judged import TREES, made_up, trees
from ultrafolio.cli import cli
from ultrafolio.engine.load import functions
from ultrafolio.errors import InputError
from ultrafolio.judge import build as program_module
from ultrafolio.judge.at_once import explain as explain_end
from ultrafolio.judge.build import Program
from ultrafolio.judge.carries import SIGNS, UNTOLD, preset
from ultrafolio.judge.citations import cited, gone, unseen
from ultrafolio.judge.concurrent import Ruled, together
from ultrafolio.judge.cut import Tree
from ultrafolio.judge.pieces import PIECES
from ultrafolio.judge.starts import Start
from ultrafolio.judge.verdict import NAMED, judge
from ultrafolio.model.fixes import FIXES, fix, order
from ultrafolio.model.policies import find


# --------------------------------------------------------------------------------------------- bad trees
def test_a_folder_that_is_no_tree(tmp_path):
    with pytest.raises(InputError, match="no kernel source tree"):
        Tree(str(tmp_path))


@pytest.mark.parametrize("makefile", ["", "VERSION = x\nPATCHLEVEL = 1\n", "VERSION = 6\n"])
def test_a_makefile_without_a_version(tmp_path, makefile):
    with pytest.raises(InputError, match="VERSION and PATCHLEVEL"):
        Tree(made_up(tmp_path, makefile))


def test_a_tree_without_the_functions_says_which(tmp_path):
    done = CliRunner().invoke(cli, ["judge", "--tree", made_up(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "this tree has no gmap_convert_to_secure" in str(done.exception)


def test_a_tree_that_does_not_compile_says_which_function(tmp_path):
    names = ("gmap_convert_to_secure", "gmap_make_secure", "make_folio_secure", "uv_convert_from_secure_folio")
    text = "".join(f"static int {name}(int a)\n{{\n\treturn not_in_the_shim(a);\n}}\n" for name in names)
    done = CliRunner().invoke(cli, ["judge", "--tree", made_up(tmp_path, uv=text)])
    assert isinstance(done.exception, InputError)
    told = str(done.exception)
    assert "does not compile over the shim (arch/s390/kernel/uv.c:" in told and no_compiler(told), told


def test_a_function_is_cut_with_its_lines(tmp_path):
    uv = "int other(int a);\n\nstatic int uv_pin_shared(unsigned long a)\n{\n\treturn 0;\n}\nint after;\n"
    cut = Tree(made_up(tmp_path, uv=uv)).function("arch/s390/kernel/uv.c", "uv_pin_shared")
    assert cut and (cut.first, cut.last, cut.where) == (3, 6, "arch/s390/kernel/uv.c:3-6")
    assert Tree(str(tmp_path)).function("arch/s390/kernel/uv.c", "other") is None


def test_citations_that_a_tree_lacks(tmp_path):
    """A definition or a call counts, a comment, a string or a prototype does not; an absent folder is said."""
    uv = """int folio_lock(struct folio *folio);
/* folio_wait_writeback(folio) */
static void f(void)
{
\tif (folio_trylock(folio))
\t\tpr_info("folio_put(folio)");
}
int
uv_pin_shared(unsigned long a)
{
}
"""
    found = gone(Tree(made_up(tmp_path, uv=uv)))
    assert not {"folio_trylock", "uv_pin_shared"} & set(found)
    assert {"folio_wait_writeback", "folio_put", "folio_lock"} <= set(found)
    done = CliRunner().invoke(cli, ["judge", "--citations", "--tree", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 3 and "drivers/s390/virtio: not in this tree" in done.output
    assert "arch/s390/kernel: not" not in done.output


@trees
def test_what_stands_in_a_driver_is_found(tree):
    assert "virtio_ccw_reset" in cited()
    if (tree / "drivers/s390/virtio/virtio_ccw.c").is_file():
        assert not {"virtio_ccw_reset", "submit_bio"} & set(gone(Tree(str(tree)))) and not unseen(Tree(str(tree)))
    else:
        assert "drivers/s390/virtio" in unseen(Tree(str(tree)))


@trees
def test_the_fixes_that_a_stable_tree_carries(tree):
    made = Tree(str(tree))
    name, said = preset(made)
    wanted = {
        "6.1": ("linux-6.1+259e660d91d0+3f29f6537f54", "c148dc8e2fa4 259e660d91d0 3f29f6537f54 98c6d259319e"),
        "6.12": ("linux-6.12", "98c6d259319e cff47b9e39a6"),
    }[made.base]
    assert (name, " ".join(one.split()[1] for one in said)) == wanted and all(one.startswith("carries") for one in said)


def test_each_fix_has_a_sign_or_a_reason():
    assert {sign.commit for sign in SIGNS} | set(UNTOLD) == {row.commit for row in FIXES}
    assert not {sign.commit for sign in SIGNS} & set(UNTOLD)
    for commit, why in UNTOLD.items():
        later = order(fix(commit).first_bad or "0.0") > order("6.13")
        assert later == ("younger" in why), commit


# ------------------------------------------------------------------------------------------ changed trees
def no_compiler(told):
    """Whether a message holds nothing of a compiler's text."""
    return not re.search(r"implicit|did you mean|-Werror|error:|undeclared|gcc", told)


def changed_tree(folder, path, old, new, version="6.12"):
    """A tree of links with one file that is changed."""
    tree = TREES[0 if version == "6.1" else 1]
    if not (tree / "mm/gup.c").is_file():
        pytest.skip(f"no {tree.name} here")
    files = {place.path for piece in PIECES for place in piece.places} | {"Makefile", "arch/s390/mm/fault.c", path}
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = (tree / name).read_text()
        if name == path:
            assert old in text, old
            text = text.replace(old, new, 1)
        (folder / name).write_text(text)
    return Tree(str(folder))


GUP_FIX = (
    "mm/gup.c",
    "\t\t\tret = arch_make_folio_accessible(folio);\n\t\t\tif (ret) {\n\t\t\t\tgup_put_folio",
    "\t\t\tif (arch_make_folio_accessible(folio)) {\n\t\t\t\tgup_put_folio",
)


def test_a_fix_that_the_text_shows_is_named_and_compared_with(tmp_path):
    tree = changed_tree(tmp_path, *GUP_FIX)
    found = judge(tree, able=("pin", "pin-fast", "reclaim"))
    assert found.policy == "linux-6.12+d16a74f0f266" and found.agrees and found.code == 0
    assert any(one.startswith("carries d16a74f0f266") for one in found.carried)
    assert found.operated["pin-fast"].explained["walks-twice"] and not found.explained["skip-needs-two-tables"]
    assert not any(one.explained["skip-needs-two-tables"] for one in found.operated.values())
    wrong = judge(tree, "linux-6.12", together_too=False)
    assert wrong.operated["pin-fast"].differ and not wrong.operated["pin"].differ
    with Program(tree) as made:
        rules = SimpleNamespace(**functions(lambda function: function))
        ruled, fixed = (Ruled(rules, find(name)) for name in ("linux-6.12", "linux-6.12+d16a74f0f266"))
        start, both = Start(arch=1, refuses=1), ("pin-fast", "writeback")
        ends, right = together(made, ruled, start, both), together(made, fixed, start, both)
        assert any(explain_end(ends, end, ruled, fixed) is None for end in ends.missing)
        assert all(explain_end(right, end, fixed, fixed) for end in right.missing)


@pytest.mark.skipif(not (TREES[1] / "mm/gup.c").is_file(), reason="no linux-source-6.12 here")
def test_a_tree_with_the_bug_does_not_fit_the_preset_with_the_fix():
    found = judge(Tree(str(TREES[1])), "linux-6.12+d16a74f0f266", together_too=False)
    assert found.operated["pin-fast"].differ and not found.operated["pin"].differ


UV = "arch/s390/kernel/uv.c"
LOST = {
    "the test for a machine that moves ownership": (
        UV, "\tif (uv_has_feature(BIT_UV_FEAT_MISC))\n\t\treturn false;\n", "", "import"),
    "a fix that the version has": (
        UV, "\treturn atomic_read(&mm->context.protected_count) > 1;", "\treturn false;", "import"),
    "the fault is for reading": (
        UV, "gmap_fault(gmap, gaddr, FAULT_FLAG_WRITE)", "gmap_fault(gmap, gaddr, 0)", "import"),
    "a busy call is an error": (
        UV, "\telse if (cc == UVC_CC_BUSY || cc == UVC_CC_PARTIAL)\n\t\treturn -EAGAIN;\n", "", "import"),
    "reclaim's second test is turned round": (
        "mm/vmscan.c", "\t\tif (folio_maybe_dma_pinned(folio))\n\t\t\tgoto activate_locked;",
        "\t\tif (!folio_maybe_dma_pinned(folio))\n\t\t\tgoto activate_locked;", "reclaim"),
    "a loop over a question": (
        UV, "\texpected = expected_folio_refs(folio);\n\tif",
        "\twhile (folio_test_writeback(folio) == 0);\n\texpected = expected_folio_refs(folio);\n\tif", "import"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_a_changed_function_differs(tmp_path, name):
    path, old, new, operation = LOST[name]
    found = judge(changed_tree(tmp_path, path, old, new), able=("import", "pin") if "loop" in name else ())
    assert found.operated[operation].differ and found.code == 1 and not found.not_judged
    assert "import and pin" not in found.unreached and ("pin and pin" in found.unreached) == ("loop" in name)


def test_a_fix_of_the_stable_release_is_expected_where_the_text_lacks_it(tmp_path):
    tree = changed_tree(tmp_path, UV, "\t\tif (rc == -EAGAIN)\n\t\t\tfolio_get(folio);\n", "", "6.1")
    name, said = preset(tree)
    assert name == "linux-6.1+259e660d91d0+3f29f6537f54"
    assert any(one.startswith("lacks 3f29f6537f54") and "which Linux 6.1.192 has" in one for one in said)


ABSENT = {
    "no second test of pins": (
        "mm/vmscan.c", "\t\tif (folio_maybe_dma_pinned(folio))\n\t\t\tgoto activate_locked;", "",
        {"reclaim": "no such block in shrink_folio_list (mm/vmscan.c)"}),
    "no walk": (
        "mm/gup.c", "struct page *follow_page_pte(", "struct page *follow_page_pte_x(",
        {"pin": "no follow_page_pte (mm/gup.c)", "pin-fast": "no follow_page_pte (mm/gup.c)"}),
    "no loop of an import": (
        UV, "int gmap_make_secure(", "int gmap_make_secure_x(",
        {"import": "no gmap_make_secure", "unshare": "no gmap_make_secure"}),
    "no writeback test of a split": (
        "mm/huge_memory.c", "\tif (folio_test_writeback(folio))\n", "\tif (0)\n",
        {"import": "no such block in split_huge_page_to_list_to_order",
         "unshare": "no such block in split_huge_page_to_list_to_order"}),
    "a call of what is nowhere": (
        UV, "\tint expected, cc = 0;\n", "\tint expected, cc = 0;\n\tfoo_bar(folio);\n",
        {"import": "make_folio_secure does not compile over the shim (arch/s390/kernel/uv.c:243)",
         "unshare": "make_folio_secure does not compile"}),
    "an error of syntax": (
        UV, "\tint expected, cc = 0;\n", "\tint expected cc = 0;\n",
        {"import": "make_folio_secure does not compile over the shim (arch/s390/kernel/uv.c:242)",
         "unshare": "make_folio_secure does not compile"}),
    "a callee that is gone": (
        UV, "static bool should_export_before_import(", "static bool should_export_x(",
        {"import": "no should_export_before_import", "unshare": "no should_export_before_import"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ABSENT)
def test_what_is_absent_is_said_and_the_rest_is_judged(tmp_path, name):
    path, old, new, wanted = ABSENT[name]
    changed_tree(tmp_path, path, old, new)
    done = CliRunner().invoke(cli, ["judge", "--alone", "--tree", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 3 and no_compiler(done.output), done.output
    told = dict(re.findall(r"^  ([a-z-]+) +not judged: (.*)", done.output, re.M))
    assert set(told) == set(wanted) and all(wanted[one] in told[one] for one in wanted), told
    last = done.output.splitlines()[-1]
    assert last == f"no unexplained difference; not judged, although this version has it: {', '.join(wanted)}"


@pytest.mark.parametrize("version", ["6.18", "9.0", "5.4"])
def test_a_version_that_the_pieces_do_not_cover_is_refused_first(tmp_path, version):
    major, minor = version.split(".")
    tree = Tree(made_up(tmp_path, f"VERSION = {major}\nPATCHLEVEL = {minor}\n"))
    with pytest.raises(InputError, match="a kernel that the judge has no pieces of") as refused:
        judge(tree)
    assert refused.value.allowed == "Linux 5.7 to 6.13"


def test_code_that_does_not_come_back_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(program_module, "MOST_SECONDS", 1.0)
    old = "\texpected = expected_folio_refs(folio);\n\tif"
    tree = changed_tree(tmp_path, UV, old, "\tfor (;;);\n" + old)
    with pytest.raises(InputError, match="import: the tree's code does not come back") as ended:
        judge(tree, together_too=False)
    assert ended.value.value == "from plain"


def test_a_question_of_the_shim_is_asked_about_the_definition_and_not_the_caller(tmp_path):
    """A caller that turns its test round is a difference, not another sense of the name."""
    tree = changed_tree(
        tmp_path,
        "mm/gup.c",
        "if (unlikely(!try_grab_page(page, flags))) {\n\t\tpage = ERR_PTR",
        "if (unlikely(try_grab_page(page, flags))) {\n\t\tpage = ERR_PTR",
        "6.1",
    )
    assert judge(tree, together_too=False).operated["pin"].differ


# -------------------------------------------------------------------------------------------------- the page
def test_the_page_is_of_the_command_that_it_names():
    text = (Path(__file__).parents[2] / "docs/judged.md").read_text()
    command = re.search(r"Made by `(.*?)`", text)[1].split()
    folders = [command[at + 1] for at, word in enumerate(command) if word == "--tree"]
    rows = re.findall(r"^\| Linux (\S+) \| `(\S+)` \|.*?(\d+), (\d+), \d+, \d+, \d+ \|$", text, re.M)
    assert command[:2] == ["ultrafolio", "judge"] and command[-1] == "--markdown" and len(folders) == len(rows) >= 2
    for folder, (version, policy, systems, places) in zip(folders, rows, strict=True):
        base = folder.removeprefix("linux-source-")
        assert version.startswith(base + ".") and policy.startswith(f"linux-{base}")
        assert ("--every" in command) == (int(places) > len(NAMED)) and int(systems) > int(places)
    names = " | ".join(f"Linux {version}" for version, *_ in rows)
    assert all(f"| {head} | {names} |" in text for head in ("rule | kernel function", "piece | what it is"))
    for row in FIXES:
        assert f"| {row.commit} |" in text


def test_a_page_names_its_command(tmp_path):
    folders = []
    for name in ("one", "two"):
        changed_tree(tmp_path / name, "Makefile", "VERSION", "VERSION")
        folders += ["--tree", str(tmp_path / name)]
    done = CliRunner().invoke(cli, ["judge", *folders, "--alone", "--markdown"], standalone_mode=False)
    assert "Made by `ultrafolio judge --tree one --tree two --alone --markdown`." in done.output
