"""The page of a search: what no policy avoids, which policies pass, the smallest changes, the choices that no policy
that passes has, and what those cost that pass; each failure with its story. It shows the record that
`ultrafolio search --json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ultrafolio.nouns import plural
from ultrafolio.search import files, words

from . import need_extra
from .findings import Answer, Finding
from .page import Section, Story, rendered, replace
from .tables import Table

Record = dict[str, Any]
MOST_ROWS = 500
"""Rows of a table; the JSON has all."""
NOBODY = "Every policy fails each of these scenarios. They are set aside: no policy is asked for them below."
PASS = "A row is a set of policies: a choice has one of the values of the row, or any. Rows may share policies."
CHANGES = (
    "What cures each failure alone, and all of them. A change may make another scenario fail. Sets of up to four "
    "changed choices were tried."
)
CORES = (
    "Each set is smallest: with one choice less, some policy passes. Every policy with it fails one of the scenarios "
    "beside it. Sets of up to five choices were tried."
)
RUNS = (
    "All cells together. No other policy that passes is at least as good in every column, and better in one. More "
    "touches are better, and less of all else."
)
TAGS: dict[str, Any] = {"Unsafe": "violated"}
"""The word of a story -> the tag of its finding, if it is not that of a hang."""


def is_search(folder: Path) -> bool:
    """Whether a folder is one that a search keeps, also before its answer is there."""
    return any((folder / name).exists() for name in (files.ANSWER, files.STORES)) or any(
        folder.glob(f"*{files.SUFFIX}")
    )


def write(folder: Path, said: Record, out: Path | None = None) -> Path:
    """Write the page of an answer to `out` (FOLDER/report.html); returns it. The same answer gives the same bytes.
    Raises InputError for a file that cannot be written, or a missing extra `report`."""
    need_extra()
    target = out or folder / "report.html"
    replace(target, page(folder, said).encode())
    return target


def page(folder: Path, said: Record) -> str:
    """The page of the answer that is kept in a folder, as text."""
    machine = f" on machine {said['machine']}" if said["machine"] else ""
    require = f" with {' '.join(said['require'])}" if said["require"] else ""
    asked, scenarios = _policies(said), plural(len(said["scenarios"]), "scenario")
    about = (
        f"{asked} of {said['design']}{require}{machine}, without bugs of kernels, on {scenarios}: "
        f"{said['verdicts']:,} verdicts. An answer is about these scenarios, not about all systems."
    )
    return rendered(
        f"Search over all policies of {said['design']}", about, answer(said), sections(said), _again(folder, said)
    )


def answer(said: Record) -> Answer:
    """The answer in sentences."""
    left, alone = len(said["left"]), len(said["nobody_passes"])
    headline = f"Every policy fails {alone} of {plural(len(said['scenarios']), 'scenario')}. " if alone else ""
    if said["survivors"]:
        headline += f"Of {_policies(said)} {said['survivors']:,} pass the other {left}."
    elif left:
        headline += (
            f"No policy passes the other {left}; the least that one fails: {', '.join(said['front'][0]['fails'])}."
        )
    findings = [
        Finding(TAGS.get(one["word"], "hung"), one["scenario"], f"fails under every policy: {words.story_line(one)}")
        for one in said["nobody_passes"]
    ]
    if said["undecided"]:
        undecided = plural(said["undecided"], "policy", "policies")
        findings.append(Finding("note", "", f"no more is known of {undecided}: a limit was reached"))
    if said["set_aside"]:
        findings.append(Finding("note", "", f"survivors were not asked about {', '.join(said['set_aside'])}"))
    return Answer(headline.strip(), findings, _best(said))


def _policies(said: Record) -> str:
    """Returns how many policies were searched, with a comma for each thousand."""
    number = said["policies"]
    return plural(number, "policy", "policies").replace(str(number), f"{number:,}")


def _best(said: Record) -> str:
    """Returns the smallest changes after which the policy of --from passes all; "" without one."""
    start = said.get("from")
    if not start:
        return ""
    policy = start["policy"] + (", without its bugs," if start["without_bugs"] else "")
    if not start["fails"]:
        return f"{policy} passes all else."
    return f"{policy} passes all else after: {words.cure_words(start['survives_after'])}."


def sections(said: Record) -> list[Section]:
    """The sections after the answer; those with something to show."""
    nobody, cores = said["nobody_passes"], said["cores"]
    shown = [one for core in cores for one in core["fails"]]
    run_text, run_tables = _runs(said)
    made = [
        Section("nobody", "What nobody can avoid", NOBODY, [], [_failures(nobody)], _stories(nobody)),
        _passing(said),
        Section("changes", "The smallest changes", CHANGES, [], _changes(said)),
        Section("cores", "Choices that no policy that passes has", CORES, [], [_cores(cores)], _stories(shown)),
        Section("runs", "The policies that pass, on recordings", run_text, [], run_tables),
        Section("asked", "What was asked", "", [], [_asked(said)]),
    ]
    return [section for section in made if any(table.rows for table in section.tables)]


def _passing(said: Record) -> Section:
    """The section on the policies that pass; where none does, on those that fail least."""
    if said["survivors"]:
        table = _rows("pass-rows", "The policies that pass all else.", said["front"][0]["rows"])
        return Section("pass", "Policies that pass", PASS, [], [table])
    tables = [
        _rows(f"front-{number}", f"Policies that fail {', '.join(one['fails'])}, and nothing else.", one["rows"])
        for number, one in enumerate(said["front"])
    ]
    return Section("pass", "The least that policies fail", f"No policy passes all else. {PASS}", [],
                   tables if said["left"] else [])  # fmt: skip


def _rows(name: str, caption: str, rows: Sequence[Record]) -> Table:
    """Sets of policies as a table with a column for each choice that a row restricts."""
    names = list(dict.fromkeys(choice for row in rows for choice in row["choices"]))
    made = [[f"{row['policies']:,}", *(_values(row["choices"], choice) for choice in names)] for row in rows]
    return _table(name, caption, ["policies", *names], made)


def _values(choices: Record, name: str) -> str:
    return " | ".join(map(str, choices[name])) if name in choices else "any"


def _failures(fails: Sequence[Record]) -> Table:
    rows = [[one["scenario"], one["word"], one["facts"], one["property"]] for one in fails]
    return _table("nobody-rows", "The scenarios, and how one policy fails each.",
                  ["scenario", "outcome", "who waits for what, or what breaks", "property"], rows)  # fmt: skip


def _stories(fails: Iterable[Record]) -> list[Story]:
    """Returns the story of each failure once, in order."""
    made = {
        (one["scenario"], one["policy"]): Story(
            f"{one['scenario']} under {one['policy']}: {words.story_line(one)}", one["told"], one["command"]
        )
        for one in fails
    }
    return list(made.values())[:MOST_ROWS]


def _changes(said: Record) -> list[Table]:
    start = said.get("from")
    if not start:
        return []
    rows = [[one["scenario"], words.cure_words(one["cures"], MOST_ROWS)] for one in start["fails"]]
    rows += [["all of them", words.cure_words(start["survives_after"], MOST_ROWS)]] if rows else []
    bugs = ", without its bugs," if start["without_bugs"] else ""
    caption = f"What {start['policy']}{bugs} fails, and the changes of which each cures it."
    return [_table("change-rows", caption, ["scenario", "changes"], rows)]


def _cores(cores: Sequence[Record]) -> Table:
    rows = [
        [
            words.choice_words(core["choices"]),
            f"{core['policies']:,}",
            one["scenario"],
            f"{one['policies']:,}",
            words.story_line(one),
        ]
        for core in cores
        for one in core["fails"]
    ]
    columns = ["choices", "policies with them", "fail", "so many of them", "how"]
    return _table("core-rows", "Smallest sets of choices, and the scenarios that show it.", columns, rows)


def _runs(said: Record) -> tuple[str, list[Table]]:
    """Returns the text and the tables on the runs of policies that pass; ("", []) without runs."""
    swept = said.get("sweep")
    if not swept:
        return "", []
    front, bad = swept["front"], swept["failed_in_runs"]
    names = [name.replace("_", " ") for name in (front[0]["measures"] if front else ())]
    rows = [
        [f"{one['policies']:,}", *(f"{value:,.10g}" for value in one["measures"].values()),
         " or ".join(words.choice_words(row["choices"]) for row in one["rows"])]
        for one in front
    ]  # fmt: skip
    text = f"{plural(swept['cells'], 'run')} of {swept['plan']}. {RUNS}"
    if bad:
        hung = f"{plural(len(bad), 'policy', 'policies')} hung or broke a property in a run, and"
        text += f" {hung} {'was' if len(bad) == 1 else 'were'} left out."
    return text, [_table("run-rows", "Those that no other one beats.", ["policies", *names, "choices"], rows)]


def _asked(said: Record) -> Table:
    rows = [
        ["design", said["design"]],
        ["machine", said["machine"] or "that of each scenario"],
        ["required", " ".join(said["require"]) or "nothing"],
        ["set aside", ", ".join(said["set_aside"]) or "nothing"],
        ["scenarios", ", ".join(said["scenarios"])],
    ]
    return _table("asked-rows", "The question.", ["what", "value"], rows)


def _table(name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    more = f" The JSON has {plural(len(rows) - MOST_ROWS, 'more row')}." if len(rows) > MOST_ROWS else ""
    return Table(name, caption + more, columns, rows[:MOST_ROWS], numeric=False)


def _again(folder: Path, said: Record) -> str:
    """Returns the commands that make the page again."""
    sweep = f" --sweep {said['sweep']['plan']}" if "sweep" in said else ""
    asked = [f"{said['command']}{sweep} --out {folder}"] if said["command"] else []
    return "\n".join([*asked, f"ultrafolio report {folder}"])
