"""Random policies on random scenarios: what the search says of them, and of others that share the verdict, against
check."""

from pathlib import Path

from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.names.find import found
from ultrafolio.search import space
from ultrafolio.search.asking.ask import FAILS, NOT_ASKED, PASSES, ask
from ultrafolio.search.asking.system import Settings

WORDS = {PASSES: "holds", FAILS: "violated"}


def drawn(of, rng, box=None):
    """A random policy of a box."""
    return tuple(rng.choice(axis.values_in(of.full if box is None else box)) for axis in of.axes)


def checked(story, values, max_states=20_000_000):
    """The verdict of check."""
    policy = space.of(story.design).policy(values)
    return check(story, "asked", policy, "drawn", Extent(max_states=max_states)).verdict


def differences(names, pairs, rng, sharing=1):
    """Ask for `pairs` random policies on scenarios of these names; a line for each verdict that check says otherwise,
    of the policy or of one of `sharing` others with the same answer. Returns the lines and how many were compared."""
    settings = {}
    wrong, compared = [], 0
    for _ in range(pairs):
        name = rng.choice(names)
        if name not in settings:
            story = found(Path(name))
            settings[name] = Settings(space.of(story.design), story)
        here = settings[name]
        values = drawn(here.space, rng)
        answer = ask(here, values)
        if answer.verdict == NOT_ASKED:
            continue
        for other in [values, *(drawn(here.space, rng, answer.box) for _ in range(sharing))]:
            compared += 1
            said = checked(here.story, other)
            if said != WORDS[answer.verdict]:
                wrong.append(f"{name}: {WORDS[answer.verdict]}, check says {said}: {here.space.policy(other)}")
    return wrong, compared
