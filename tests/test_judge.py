"""The rules against the kernel's own C: a tree made up here always, the trees of 6.1 and 6.12 where they are."""

import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from mutants import MUTANTS
from ultrafolio.cli import cli
from ultrafolio.engine.load import functions
from ultrafolio.errors import InputError
from ultrafolio.judge import build as program_module
from ultrafolio.judge.at_once import REASONS as AT_ONCE_REASONS
from ultrafolio.judge.at_once import explain as explain_end
from ultrafolio.judge.build import Ask, Program, questions
from ultrafolio.judge.carries import SIGNS, UNTOLD, preset
from ultrafolio.judge.citations import cited, gone, unseen
from ultrafolio.judge.concurrent import Ruled, together
from ultrafolio.judge.cut import Tree
from ultrafolio.judge.explained import REASONS, explain
from ultrafolio.judge.pieces import PIECES
from ultrafolio.judge.sequential import compare
from ultrafolio.judge.stands import STANDS
from ultrafolio.judge.starts import Doing, Start, build, starts
from ultrafolio.judge.verdict import NAMED, judge
from ultrafolio.judge.watch import differences, events, joined, without
from ultrafolio.judge.world import World
from ultrafolio.model.fixes import FIXES, fix, order
from ultrafolio.model.layout import ANON, EXPORTED, IOMAP, MAPPED, SECURE, SHARED, SHMEM, UNMAPPED, WRITING
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


@pytest.fixture(scope="module")
def program():
    """The judged functions of 6.12, compiled once."""
    if not (TREES[1] / "mm/gup.c").is_file():
        pytest.skip("no linux-source-6.12 here")
    with Program(Tree(str(TREES[1]))) as made:
        yield made


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


# ------------------------------------------------------------------------------------------- the judgement
@trees
def test_no_difference_is_left_without_an_explanation(tree):
    found = judge(Tree(str(tree)))
    assert found.missing == []
    assert {name: one.differ for name, one in found.operated.items() if one.differ} == {}
    assert found.operated["import"].equal > 400 and found.nodes > 10_000


@trees
def test_each_reason_is_used_or_is_of_the_other_tree(tree):
    used = {name for one in judge(Tree(str(tree)), together_too=False).operated.values() for name in one.explained}
    other = {"walks-twice"} | ({"large-has-no-bit"} if tree.name == "linux-source-6.1" else set())
    assert used == {reason.name for reason in REASONS} - other


CAUGHT = {
    "no test for writeback": (
         "    if s.mm[head(s, k.page)].writeback != NO_WRITEBACK:\n"
         "        unlock",
         "    if 0:\n"
         "        unlock",
    ),
    "no freeze": (
         "    s.mm[counted(s, k.page)].frozen = 1\n",
         "",
    ),
    "no bit before the call": (
         "    set_arch(s, s.task[t].page)\n",
         "",
    ),
    "no count of references": (
         "extra_refs(s, k.page) > k.ref or never_matches",
         "never_matches",
    ),
    "no thaw after a failure": (
         "    thaw(s, t)\n"
         "    if rc == UV_BUSY",
         "    if rc == UV_BUSY",
    ),
    "an unshare exports first": (
         " and k.call != UNSHARE",
         "",
    ),
    "a refused unshare is fatal": (
         "    if s.task[t].call == UNSHARE:\n"
         "        leave(s, t)\n"
         "        return E_UV\n",
         "",
    ),
    "no export before a foreign import": (
         "    if foreign:\n"
         "        k.pc = IMPORT_EXPORT",
         "    if False:\n"
         "        k.pc = IMPORT_EXPORT",
    ),
    "no own reference": (
         "        k.ref = 1\n"
         "        get_ref(s, k.page, 2)\n",
         "        pass\n",
    ),
    "the own reference stays": (
         "        k.ref = 0\n"
         "        put_ref(s, k.page, 2)\n",
         "        k.ref = 0\n",
    ),
    "a dirty folio is split": (
         "if m.dirty and m.backing == IOMAP:",
         "if 0:",
    ),
    "references before dirt": (
         "    if m.writeback != NO_WRITEBACK:\n"
         "        if s.cfg[0].import_ref",
         "    if m.refs > k.ref:\n"
         "        return too_many_refs(s, t)\n"
         "    if m.writeback != NO_WRITEBACK:\n"
         "        if s.cfg[0].import_ref",
    ),
    "a pin that is not made accessible": (
         "make_accessible(s, t, p, unit != ACC_UNIT_PAGE, PIN_GET)",
         "pass",
    ),
    "an export without a pin": (
         "    if uv_pin(s, k.i) == UV_OK:\n"
         "        return page_done(s, t)\n"
         "    k.failed = k.i + 1\n",
         "    k.failed = 0\n",
    ),
    "writeback that is not made accessible": (
         "make_accessible(s, t, s.task[t].page, True, WB_IO)",
         "s.task[t].pc = WB_IO",
    ),
    "reclaim does not ask for pins first": (
         "    if h.backing == ANON and pinned(s, k.page):\n",
         "    if False:\n",
    ),
    "reclaim asks for pins of all memory first": (
         "    if h.backing == ANON and pinned(s, k.page):\n",
         "    if pinned(s, k.page):\n",
    ),
    "an unmap clears the bit though its export was refused": (
         "    if uv_export(s, k.i) != UV_OK:\n"
         "        unlock(s, k.page)\n",
         "    if uv_export(s, k.i) != UV_OK:\n"
         "        clear_arch(s, k.i)\n"
         "        unlock(s, k.page)\n",
    ),
    "a fast pin clears the bit of a page that it skips": (
         "    if k.then == PIN_GET and s.cfg[0].gup_skips:\n",
         "    if k.then == PIN_GET and s.cfg[0].gup_skips:\n"
         "        clear_arch(s, k.i)\n",
    ),
    "a pin does not map its page": (
         "    s.pt[p].present = MAPPED\n"
         "    get_ref(s, p, is_long(s, t))\n",
         "    get_ref(s, p, is_long(s, t))\n",
    ),
    "writeback that waits makes its folio dirty": (
         "    if h.writeback != NO_WRITEBACK:\n"
         "        return W_WRITEBACK\n"
         "    h.locked = 1\n",
         "    if h.writeback != NO_WRITEBACK:\n"
         "        h.dirty = 1\n"
         "        return W_WRITEBACK\n"
         "    h.locked = 1\n",
    ),
    "an unmap that clears no bit": (
         "    if s.cfg[0].track != TRACK_FOLIO or s.mm[k.page].order == 0:\n"
         "        clear_arch(s, k.i)\n",
         "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUGHT)
def test_a_broken_rule_differs(program, name):
    rules = SimpleNamespace(**functions(lambda function: function, dict([CAUGHT[name]])))
    alone = [one.name for one in program.made.operations]
    assert any(explain(pair) is None for pair in compare(program, rules, find("linux-6.12"), alone)), name


def test_a_rule_that_is_wrong_only_beside_another_thread_has_ends_that_the_c_has_not(program):
    changed = {"    if s.mm[head(s, k.page)].backing == ANON and pinned(s, k.page):\n": "    if False:\n"}
    rules, wrong = (SimpleNamespace(**functions(lambda function: function, change)) for change in (None, changed))
    alone = [one.name for one in program.made.operations]
    assert all(explain(pair) is not None for pair in compare(program, wrong, find("linux-6.12"), alone, False))
    start = NAMED["shared-anon"]
    right, found = (together(program, Ruled(r, find("linux-6.12")), start, ("pin", "reclaim")) for r in (rules, wrong))
    assert len(found.unreached) > len(right.unreached)


AT_ONCE = {
    "fault-is-a-step": (
        ("import", "import"), Start(present=UNMAPPED), "    set_arch(s, s.task[t].page)\n", "",
    ),
    "lock-before-test": (
        ("import", "writeback"), Start(writeback=WRITING),
        "    if s.mm[head(s, s.task[t].page)].writeback != NO_WRITEBACK:\n        return W_WRITEBACK\n", "",
    ),
    "skip-needs-two-tables": (
        ("pin", "pin"), Start(arch=1, refuses=1), *CAUGHT["a pin that is not made accessible"],
    ),
    "late-is-told-later": (
        ("import", "reclaim"), Start(refuses=1), "    set_arch(s, s.task[t].page)\n", "",
    ),
    "put-after-unlock": (("import", "import"), Start(order=1), "    if m.refs > k.ref:\n", "    if True:\n"),
}  # fmt: skip
"""For each reason a system that needs it, and a broken rule that it must not cover there."""


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_reason_at_once_is_needed_and_covers_no_broken_rule(program, name):
    operations, start, old, new = AT_ONCE[name]
    assert unexplained(program, operations, start, {}) == []
    assert unexplained(program, operations, start, {}, without=name)
    assert unexplained(program, operations, start, {old: new})


def unexplained(program, operations, start, changed, without=""):
    """The ends of the C that the rules lack, and that no reason but `without` explains."""
    rules = SimpleNamespace(**functions(lambda function: function, changed))
    ruled, fixed = (Ruled(rules, find(name)) for name in ("linux-6.12", "linux-6.12+d16a74f0f266"))
    found = together(program, ruled, start, operations)
    others = [reason for reason in AT_ONCE_REASONS if reason.name != without]
    return [end for end in found.missing if not any(reason.holds(found, end, ruled, fixed) for reason in others)]


def test_every_reason_at_once_has_a_system():
    assert [reason.name for reason in AT_ONCE_REASONS] == list(AT_ONCE)


def test_an_end_that_the_c_cannot_have_is_named_by_what_differs():
    one, other = Start(), Start(arch=1, locked=1)
    a, b = (build(start, find("per-page"), [Doing("import", 0)]).key("uv", "mm", "pt", "io") for start in (one, other))
    assert differences(a, b) == ["arch of page 0 is 0, in the C 1", "locked of page 0 is 0, in the C 1"]
    assert differences(without(a, "locked", "arch"), without(b, "locked", "arch")) == []


@pytest.mark.skipif(not (TREES[1] / "mm/gup.c").is_file(), reason="no linux-source-6.12 here")
def test_three_at_once_from_a_named_start():
    found = judge(Tree(str(TREES[1])), whole=False, three=["exported"], able=("import", "pin"))
    assert found.at_once == (3 * 8 + 4, 8) and found.missing == []


def test_what_is_beyond_the_limit_is_not_judged(program, monkeypatch):
    monkeypatch.setattr("ultrafolio.judge.concurrent.MOST_NODES", 20)
    found = judge(Tree(str(TREES[1])), whole=False, able=("import",))
    assert set(found.not_judged) == {f"import and import from {start}" for start in NAMED.values()} and found.code == 3


@pytest.mark.slow
@trees
def test_two_at_once_from_every_start(tree):
    found = judge(Tree(str(tree)), whole=False, every=True)
    assert found.missing == [] and found.at_once[0] > 8_000


@pytest.mark.skipif(not (TREES[1] / "mm/gup.c").is_file(), reason="no linux-source-6.12 here")
def test_rules_without_an_end_of_the_c_are_told():
    changed = dict([CAUGHT["a refused unshare is fatal"]])
    found = judge(Tree(str(TREES[1])), whole=False, able=["unshare"], changed=changed)
    assert any(text.startswith("unshare and unshare from plain") for text in found.missing) and not found.agrees


@trees
def test_the_table_of_places_is_right_for_the_trees_at_hand(tree):
    made = Tree(str(tree))
    seen = 0
    for _, versions, path, names in STANDS:
        first, last = versions.split("-")
        if not order(first) <= order(made.base) <= order(last):
            continue
        found = re.findall(r"[a-z0-9_]+_[a-z0-9_]+", names)
        assert any(made.function(path, name) for name in found), (path, names)
        seen += 1
    assert seen >= 8


def test_the_broken_rules_are_those_of_the_other_tests():
    known = {old for changes, _ in MUTANTS.values() for old in changes}
    assert sum(1 for old, _ in CAUGHT.values() if old in known) >= 10


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


GUP_FIX = ("mm/gup.c", "\t\t\tret = arch_make_folio_accessible(folio);\n\t\t\tif (ret) {\n\t\t\t\tgup_put_folio",
           "\t\t\tif (arch_make_folio_accessible(folio)) {\n\t\t\t\tgup_put_folio")  # fmt: skip


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
    tree = changed_tree(tmp_path, "mm/gup.c", "if (unlikely(!try_grab_page(page, flags))) {\n\t\tpage = ERR_PTR",
                        "if (unlikely(try_grab_page(page, flags))) {\n\t\tpage = ERR_PTR", "6.1")  # fmt: skip
    assert judge(tree, together_too=False).operated["pin"].differ


# -------------------------------------------------------------------------------------------------- the page
def test_the_page_is_of_the_command_that_it_names():
    text = (Path(__file__).parent.parent / "docs/judged.md").read_text()
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


# ------------------------------------------------------------------- each primitive of the shim (docs/kernel)
def test_every_question_has_a_meaning():
    assert len(set(questions())) == len(questions())
    for name in questions():
        assert callable(getattr(World, name)), name


def test_trylock_and_lock():
    on, _ = world(Start())
    assert answer(on, "trylock") == 1 and answer(on, "trylock") == 0
    assert answer(on, "lock") is None
    answer(on, "unlock")
    assert answer(on, "lock") == 1


def test_writeback_is_waited_for():
    on, _ = world(Start(writeback=WRITING))
    assert answer(on, "writeback") == 1 and answer(on, "wait_writeback") is None
    answer(on, "end_writeback")
    assert answer(on, "writeback") == 0 and answer(on, "wait_writeback") == 0
    answer(on, "start_writeback")
    assert answer(on, "writeback") == 1


@pytest.mark.parametrize(("backing", "order", "count"), [(ANON, 0, 1), (SHMEM, 0, 2), (ANON, 1, 2), (SHMEM, 1, 4)])
def test_a_count_is_mappings_and_cache_and_others(backing, order, count):
    on, _ = world(Start(backing=backing, order=order))
    assert answer(on, "refs") == count and answer(on, "mapcount") == 1 << order
    answer(on, "get")
    assert answer(on, "refs") == count + 1
    answer(on, "put")
    assert answer(on, "pin") == 1 and answer(on, "refs") == count + 1 and answer(on, "pinned") == 1
    answer(on, "unpin")
    assert answer(on, "refs") == count and answer(on, "pinned") == 0


def test_freeze_matches_exactly_and_refuses_a_pin():
    on, _ = world(Start())
    assert answer(on, "freeze", more=1) == 0 and answer(on, "freeze", more=2) == 1
    assert answer(on, "pin") == 0
    answer(on, "unfreeze")
    assert answer(on, "pin") == 1 and answer(on, "freeze", more=2) == 0


def test_drains_of_one_cpu_and_of_all():
    for batch, own in (("batch of this CPU", 0), ("batch of another CPU", 1)):
        on, _ = world(Start(references=batch))
        answer(on, "drain_own")
        assert on.folio(0).refs == own
        answer(on, "drain_all")
        assert on.folio(0).refs == 0


def test_the_bit():
    on, _ = world(Start())
    assert answer(on, "test_bit") == 0
    answer(on, "set_bit")
    assert answer(on, "test_bit") == 1
    answer(on, "clear_bit")
    assert answer(on, "test_bit") == 0


@pytest.mark.parametrize(
    ("uv", "command", "code", "after"),
    [(EXPORTED, 0x200, 0, SECURE), (SECURE, 0x201, 0, EXPORTED), (SHARED, 0x341, 0, 3), (SECURE, 0x341, 1, SECURE),
     (3, 0x342, 0, SECURE), (0, 0x342, 1, 0), (SECURE, 0x202, 0, 0)],
)  # fmt: skip
def test_calls_are_the_models_own(uv, command, code, after):
    on, _ = world(Start(uv=uv, arch=1))
    assert answer(on, "call", more=command) == code
    assert on.state.uv[0].state == after


def test_the_table_lock_keeps_others_out():
    on, _ = world(Start())
    assert answer(on, "table_lock") == 0 and answer(on, "table_lock") is None
    on.table = 1
    for question in ("fault", "clean", "unmap_split"):
        assert answer(on, question) is None, question
    answer(on, "table_unlock")
    assert answer(on, "table_lock") == 0


def test_entries():
    on, _ = world(Start(writable=0))
    assert answer(on, "entry") == 1
    assert answer(on, "fault") == 0 and answer(on, "entry") == 1
    assert answer(on, "fault", more=1) == 0 and answer(on, "entry") == 3
    assert answer(on, "clear_entry") == 3 and answer(on, "entry") == 0 and answer(on, "mapped") == 0
    answer(on, "restore_entry")
    assert answer(on, "entry") == 3 and answer(on, "mapped") == 1
    answer(on, "clean")
    assert answer(on, "entry") == 1


def test_a_fault_of_an_iomap_file_is_dirty_and_a_release_refused():
    on, _ = world(Start(backing=IOMAP, present=UNMAPPED))
    assert answer(on, "release") == 1 and answer(on, "dirty_file") == 1 and answer(on, "in_file") == 1
    answer(on, "fault")
    assert on.state.pt[0].present == MAPPED and answer(on, "entry") == 1 and answer(on, "release") == 1
    answer(on, "fault", more=1)
    assert answer(on, "entry") == 3 and answer(on, "release") == 0


def test_a_split_unmaps_freezes_and_parts():
    on, _ = world(Start(order=1))
    assert (answer(on, "large"), answer(on, "pages"), answer(on, "head", 1)) == (1, 2, 0)
    answer(on, "get")
    answer(on, "unmap_split")
    assert answer(on, "freeze", more=3) == 1
    answer(on, "split")
    assert (answer(on, "large"), answer(on, "head", 1), answer(on, "refs", 1)) == (0, 1, 2)
    on.parted.add(0)
    answer(on, "remap")
    assert on.parted == set()


def test_a_swap_out_is_refused_while_referenced_or_mapped():
    away = Start(present=UNMAPPED)
    for start, wanted in ((away, True), (Start(), False), (replace(away, references="pin"), False)):
        on, _ = world(start)
        assert bool(answer(on, "swap_out")) is wanted


def test_answers_about_the_system():
    on, _ = world(Start(backing=ANON))
    assert answer(on, "anon") == 1 and answer(on, "in_file") == 0 and answer(on, "swapcache") == 0
    assert answer(on, "guests") == 1 and answer(on, "owner_moves") == 0
    answer(on, "late")
    assert on.was_late == {0}


# ---------------------------------------------------------------------------------------------- events
def test_events_of_a_step():
    on, watched = world(Start())
    watched.start()
    answer(on, "trylock")
    answer(on, "writeback")
    answer(on, "freeze", more=2)
    answer(on, "set_bit")
    answer(on, "call", more=0x200)
    assert events(watched.stop()) == ["lock folio 0", "folio 0 in writeback? no", "freeze folio 0",
                                      "set the bit of page 0", "call for page 0: NON_SECURE -> SECURE"]  # fmt: skip


def test_a_freeze_thawed_at_once_is_none():
    assert joined(["freeze folio 0", "thaw folio 0", "a", "a", "freeze folio 0", "b"]) == ("a", "freeze folio 0", "b")


def test_starts_are_distinct():
    every = list(starts())
    assert len(every) == len(set(every)) and set(starts(False)) <= set(every)
