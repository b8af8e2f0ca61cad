"""`ultrafolio judge`: compare the rules with the kernel's C functions, from a source tree of the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ultrafolio.errors import InputError
from ultrafolio.judge import observed
from ultrafolio.judge.assemble import assemble
from ultrafolio.judge.at_once import REASONS as AT_ONCE
from ultrafolio.judge.citations import gone, unseen
from ultrafolio.judge.concurrent import MOST_NODES
from ultrafolio.judge.cut import Tree
from ultrafolio.judge.explained import REASONS
from ultrafolio.judge.memfd import page as memfd_page
from ultrafolio.judge.memfd import verdict as memfd
from ultrafolio.judge.memfd.pieces import MEMFD
from ultrafolio.judge.page import page
from ultrafolio.judge.verdict import NAMED, Judgement
from ultrafolio.judge.verdict import judge as judge_tree
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD, S390
from ultrafolio.nouns import plural


@click.command()
@click.option("--tree", "trees", multiple=True, required=True, metavar="DIR", help="A kernel source tree.")
@click.option(
    "--design",
    type=click.Choice(list(DESIGNS)),
    default=S390.name,
    show_default=True,
    help="Whose rules are judged; of guest_memfd those of two backings, Linux 6.8 to 6.12.",
)
@click.option("--preset", default="", metavar="NAME", help="The policy to hold it to, instead of its version's.")
@click.option("--alone", is_flag=True, help="One operation at a time only; no two at once.")
@click.option("--every", is_flag=True, help="Two at once from every start, not only from the named ones: minutes.")
@click.option(
    "--three",
    multiple=True,
    type=click.Choice(list(NAMED)),
    metavar="START",
    help=f"Three at once, too, from this start; may be given again: {', '.join(NAMED)}.",
)
@click.option("--citations", is_flag=True, help="Only say which cited functions the tree does not have.")
@click.option("--source", is_flag=True, help="Only print the C program: the shim, the cut functions, the callers.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option(
    "--brief", is_flag=True, help="Only a line that decides, for each system of operations from a named start."
)
@click.option("--markdown", is_flag=True, help="The design's page docs/judged….md; --tree may be given again.")
def judge(
    trees: tuple[str, ...],
    design: str,
    preset: str,
    alone: bool,
    every: bool,
    three: tuple[str, ...],
    citations: bool,
    source: bool,
    as_json: bool,
    brief: bool,
    markdown: bool,
) -> int:
    """Compare the rules with the kernel's own functions.

    The functions are cut from the tree by name, unmodified, and compiled over a shim. Each runs alone from every small
    state, and two run concurrently from some or all of them.

    \b
    ultrafolio judge --tree linux-source-6.12
    ultrafolio judge --tree linux-source-6.12 --three secure --json
    ultrafolio judge --tree linux-source-6.12 --every
    ultrafolio judge --tree linux-source-6.12 --citations
    ultrafolio judge --tree linux-source-6.12 --design guest_memfd

    Exit codes: 0 each difference is explained, 1 one is not, 2 bad input, 3 no difference, but not all was judged.
    """
    if len(trees) > 1 and (not markdown or citations or source):
        raise InputError("--tree: more than one", value=len(trees), allowed="one tree, or --markdown")
    if citations:
        return _citations(Tree(trees[0]), DESIGNS[design])
    if design == GUEST_MEMFD.name:
        others = {"--preset": preset, "--three": three, "--brief": brief}
        if given := [name for name, value in others.items() if value]:
            raise InputError(
                "--design guest_memfd with another option",
                value=" ".join(given),
                allowed="--tree, --alone, --every, --citations, --source, --json and --markdown beside it",
            )
        return _memfd(trees, alone=alone, every=every, source=source, as_json=as_json, markdown=markdown)
    if source:
        click.echo(assemble(Tree(trees[0])).text)
        return 0
    if alone and (every or three):
        raise InputError("--alone with --every or --three", value="both", allowed="one of them")
    others = {"--alone": alone, "--every": every, "--json": as_json, "--markdown": markdown}
    if brief and any(others.values()):
        raise InputError(
            "--brief with another form",
            value=" ".join(name for name, given in others.items() if given),
            allowed="--tree, --preset and --three beside --brief",
        )
    results = [
        judge_tree(Tree(tree), preset, together_too=not alone, every=every, three=three, singly=brief) for tree in trees
    ]
    if brief:
        click.echo("\n".join(_lines(results[0])))
    elif markdown:
        click.echo(page(results, _command(trees, preset, alone, every, three)), nl=False)
    elif as_json:
        click.echo(json.dumps(as_record(results[0]), ensure_ascii=False, indent=1))
    else:
        click.echo(_text(results[0]), nl=False)
    codes = {result.code for result in results}
    return next((code for code in (1, 3) if code in codes), 0)


def _memfd(trees: tuple[str, ...], *, alone: bool, every: bool, source: bool, as_json: bool, markdown: bool) -> int:
    """Judge trees for guest_memfd, and print what was found. Returns the exit code."""
    if source:
        click.echo(assemble(Tree(trees[0]), parts=MEMFD).text)
        return 0
    if alone and every:
        raise InputError("--alone with --every", value="both", allowed="one of them")
    results = [memfd.judge(Tree(tree), together_too=not alone, every=every) for tree in trees]
    if markdown:
        words = ["ultrafolio judge --design guest_memfd", *(f"--tree {Path(tree).resolve().name}" for tree in trees)]
        command = " ".join([*words, *["--alone"] * alone, *["--every"] * every, "--markdown"])
        click.echo(memfd_page.page(results, command), nl=False)
    elif as_json:
        click.echo(json.dumps(memfd_page.as_record(results[0]), ensure_ascii=False, indent=1))
    else:
        click.echo(memfd_page.text(results[0]), nl=False)
    codes = {result.code for result in results}
    return next((code for code in (1, 3) if code in codes), 0)


def _lines(result: Judgement) -> list[str]:
    """The line that decides, of each system of operations; its start is called by its name."""
    names = {start: name for name, start in NAMED.items()}
    kernel = f"linux-{result.version}"
    return [observed.line(one, names[one.start], kernel, result.asked) for one in result.seen]


def _command(trees: tuple[str, ...], preset: str, alone: bool, every: bool, three: tuple[str, ...]) -> str:
    """The command line that makes the page; trees are named by their folders' names."""
    words = ["ultrafolio judge", *(f"--tree {Path(tree).resolve().name}" for tree in trees)]
    words += [f"--preset {preset}"] if preset else []
    words += ["--alone"] * alone + ["--every"] * every + [f"--three {start}" for start in three]
    return " ".join([*words, "--markdown"])


def _citations(tree: Tree, design: Design) -> int:
    """Print the functions that rules cite and the tree lacks. Returns the exit code: 3 if parts of the tree are
    missing."""
    found = gone(tree, design)
    for name, rules in found.items():
        click.echo(f"{name}: not in Linux {tree.version}; cited by {', '.join(rules)}")
    click.echo(f"Linux {tree.version}: {len(found)} of the cited functions are not there")
    missing = unseen(tree, design)
    for folder in missing:
        click.echo(f"{folder}: not in this tree; what stands there cannot be found (tools/kernel-trees.sh unpacks it)")
    return 3 if missing else 0


def as_record(result: Judgement) -> dict[str, Any]:
    """The result as a JSON object of version 2."""
    return {
        "version": 2,
        "kernel": result.version,
        "policy": result.policy,
        "carried": result.carried,
        "pieces": result.cuts,
        "not_judged": result.not_judged,
        "agrees": result.agrees,
        "complete": not result.not_judged,
        "operations": {
            name: {
                "equal": one.equal,
                "explained": one.starts_explained,
                "reasons": dict(sorted(one.explained.items())),
                "differ": one.differ,
            }
            for name, one in result.operated.items()
        },
        "at_once": {
            "systems": result.at_once[0],
            "starts": result.at_once[1],
            "states": result.nodes,
            "missing": result.missing,
            "reasons": dict(sorted(result.explained.items())),
            "unreached": {group: dict(sorted(ends.items())) for group, ends in result.unreached.items() if ends},
        },
    }


def _text(result: Judgement) -> str:
    lines = [f"Linux {result.version}, held to {result.policy}"]
    lines += [f"  {said}" for said in result.carried]
    for name, one in result.operated.items():
        lines.append(f"  {name:12} equal {one.equal}, explained {one.starts_explained}, differ {len(one.differ)}")
    lines += [f"  {name:12} not judged: {why}" for name, why in result.not_judged.items()]
    if result.nodes:
        systems, places = result.at_once
        lines.append(
            f"at once: {plural(systems, 'system')} from {plural(places, 'start')}, "
            f"{plural(result.nodes, 'state')} of the C, at most {MOST_NODES} each"
        )
        lines.append(f"  ends that the rules lack: {len(result.missing)}, and {result.explained.total()} with a reason")
        lines.append(f"  ends of the rules that the C cannot have: {result.ends_unreached}")
    lines += result.missing[:20]
    used = {name for one in result.operated.values() for name in one.explained}
    lines += [
        f"{reason.name}: {reason.about}; {result.cuts.get(reason.piece, '')}"
        for reason in AT_ONCE
        if result.explained[reason.name]
    ]
    lines += [
        f"{reason.name}: {reason.about}; {result.cuts.get(reason.piece, '')}"
        for reason in REASONS
        if reason.name in used
    ]
    for one in result.operated.values():
        for diff in one.differ[:3]:
            lines.append(diff)
    lines.append(_last(result))
    return "\n".join(lines) + "\n"


def _last(result: Judgement) -> str:
    """The verdict in one line."""
    said = "no unexplained difference" if result.agrees else "the rules differ from the kernel's C"
    if result.not_judged:
        said += f"; not judged, although this version has it: {', '.join(result.not_judged)}"
    return said
