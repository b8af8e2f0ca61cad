"""docs/map.md: which names there are, what each shipped scenario is called, and how every short name was judged.

`python -m ultrafolio.commands.map_page > docs/map.md` writes the page; with a file as its argument also the picture
docs/images/map.png.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ultrafolio.check.verdicts.verdict import Extent, Result, check
from ultrafolio.export.observation import WORDS, word_of
from ultrafolio.markdown import table
from ultrafolio.model import kernels, policies
from ultrafolio.names import grammar, text
from ultrafolio.names.shelf import NAMES, UNNAMED

MOST_WORDS, MOST_OF_KERNELS = 3, 2
"""Words of the names that are judged under the presets, and under the kernels."""
LETTERS = {
    "Holds": ".", "Expected": "e", "Waits": "w", "VmmBound": "v", "Livelocks": "L", "Hangs": "H", "Fatal": "F",
    "Unsafe": "U", "Unknown": "?",
}  # fmt: skip
"""One letter per word of the line that decides."""
FAILS = frozenset(WORDS.values()) - {"Waits"}
"""Words that count against a policy."""
EXTENT = Extent(2_000_000, 2048)
Answers = dict[str, str]
"""Letters by name, one for each policy."""

INTRO = """\
# Names, and what was asked

Made from `src/ultrafolio/names` by `python -m ultrafolio.commands.map_page`; do not edit.

A name says what a scenario is: OBSTACLE[.how]+WHERE[+what the vCPU does][+more vCPUs][+later OBSTACLE].
`ultrafolio scenario LPIN.early+neigh` prints the scenario as a file, `ultrafolio check LPIN.early+neigh` checks it. One
scenario has one name: the words behind an obstacle stand in the order backing, kind, count, when; later obstacles in
the order of the table; a word that changes nothing is refused. The obstacle's page is page 0; a later obstacle is on
the page that the last vCPU wants, that of `vcpu.apart` not counted. Tests compare all names of up to three words
(`--long`: four): no two are of one scenario, also where its pages are numbered in another order.
"""


def answers(names: Iterable[grammar.Name], chosen: Sequence[str]) -> Answers:
    """The letter of each name under each policy."""
    made = {name: policies.find(name) for name in chosen}
    found = {}
    for name in names:
        story, letters = grammar.scenario(name), ""
        for policy, choices in made.items():
            result = check(story, str(name), choices, policy, EXTENT)
            letters += letter_of(result)
        found[str(name)] = letters
    return found


def letter_of(result: Result) -> str:
    """The letter of the word with which the line of a result decides."""
    return LETTERS[word_of(result.verdict, result.worst.kind, result.worst.expected)]


def named() -> list[grammar.Name]:
    """The names of the shipped scenarios, in their order."""
    return [grammar.read(name) for name in NAMES.values()]


def document(presets: Answers, by_kernel: Answers) -> str:
    """The page."""
    return "\n".join(
        [
            INTRO,
            "## Words",
            "",
            text.words(),
            "",
            "## The shipped scenarios",
            "",
            *table(["scenario", "name"], _shelf()),
            "",
            *_asked(presets),
            *_kernels(by_kernel),
        ]
    )


def _shelf() -> list[tuple[str, str]]:
    rows = [(f"`{stem}`", f"`{name}`") for stem, name in NAMES.items()]
    return sorted(rows + [(f"`{stem}`", f"no name: {reason}") for stem, reason in UNNAMED.items()])


def _asked(found: Answers) -> list[str]:
    """What was asked under the presets, and answered: the counts, and a line a name."""
    chosen = list(policies.PRESETS)
    rows = [
        [f"`{policy}`", *(sum(letters[at] == letter for letters in found.values()) for letter in LETTERS.values())]
        for at, policy in enumerate(chosen)
    ]
    return [
        "## What was asked, and answered",
        "",
        f"All {len(found)} names of up to {MOST_WORDS} words, each under the {len(chosen)} presets:",
        f"{len(found) * len(chosen)} questions. Each word is that of the line that decides",
        "([formats.md](formats.md#7-the-line-that-decides)); the numbers count names.",
        "",
        *table(["policy", *(f"{word} `{letter}`" for word, letter in LETTERS.items())], rows),
        "",
        "![Names of two words by presets, with the class of the worst finding](images/map.png)",
        "",
        f"A line a name; the letters stand for {', '.join(chosen)}.",
        "",
        *lines(found),
        "",
    ]


def lines(found: Answers) -> list[str]:
    """Answers as lines of a code block."""
    width = max(map(len, found))
    return ["```", *(f"{name:<{width}}  {letters}" for name, letters in found.items()), "```"]


def _kernels(found: Answers) -> list[str]:
    chosen = kernels.names()
    rows = [
        (f"`{name}`", f"`{chosen[at]}`", _word(found[name][at]), f"`{chosen[at + 1]}`", _word(found[name][at + 1]))
        for name, at in fixed(found)
    ]
    return [
        "## By kernel",
        "",
        f"The names of up to {MOST_OF_KERNELS} words, and those of the shipped scenarios; the letters stand for",
        f"{', '.join(chosen)}.",
        "",
        *lines(found),
        "",
        "### Broken, and fixed",
        "",
        "A pair of kernels, one after the other, of which the first fails and the second does not.",
        "",
        *table(["name", "broken in", "where it", "fixed in", "where it"], rows),
        "",
    ]


def fixed(found: Mapping[str, str]) -> list[tuple[str, int]]:
    """Each (name, number of a kernel) where the name fails under that kernel and does not under the next one.

    found: name -> a letter for each kernel.
    """
    return [
        (name, at)
        for name, letters in found.items()
        for at, (this, following) in enumerate(itertools.pairwise(letters))
        if _word(this) in FAILS and _word(following) not in FAILS
    ]


def _word(letter: str) -> str:
    return next(word for word, one in LETTERS.items() if one == letter)


def picture(found: Mapping[str, str], file: Path) -> None:
    """Write the matrix of these names by presets as a PNG."""
    from ultrafolio.report.answers import matrix

    words = {name: [_word(letter) for letter in letters] for name, letters in found.items()}
    file.write_bytes(matrix(words, list(policies.PRESETS), LETTERS, "names of two words by presets")[1])


def main(arguments: Sequence[str]) -> None:
    """Print the page; write the picture to the file that the argument names."""
    presets = answers(grammar.names(MOST_WORDS), list(policies.PRESETS))
    short = list(grammar.names(MOST_OF_KERNELS))
    every = {str(name): name for name in [*short, *named()]}
    by_kernel = answers(every.values(), kernels.names())
    print(document(presets, by_kernel), end="")
    for file in arguments:
        picture({str(name): presets[str(name)] for name in short}, Path(file))


if __name__ == "__main__":
    main(sys.argv[1:])
