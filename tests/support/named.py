"""Scenarios in a form that is equal for equal scenarios, whatever numbers their pages have."""

import itertools

from ultrafolio.model.scenario import PAGE_LISTS


def plain(story):
    """Memory, features and actors, with what stands for all pages written for each."""
    pages = sum(1 << order for order in story.memory["folios"])
    memory = dict(story.memory)
    for name in ("state", "owner"):
        memory[name] = memory[name] * (1 if len(memory[name]) == pages else pages)
    return memory, story.features, story.actors


def renumbered(story):
    """The least text of `plain` over all numberings of the pages that leave folios whole and in their order of size."""
    folios, at, starts = story.memory["folios"], 0, []
    for order in folios:
        starts.append(at)
        at += 1 << order
    return min(_text(story, numbers) for numbers in _numberings(folios, starts))


def _numberings(folios, starts):
    """Each: the new number of every page."""
    for places in itertools.permutations(range(len(folios))):
        if [folios[n] for n in places] != folios:
            continue
        inside = [list(itertools.permutations(range(1 << order))) for order in folios]
        for within in itertools.product(*inside):
            yield [starts[places[n]] + within[n][p] for n, order in enumerate(folios) for p in range(1 << order)]


def _text(story, numbers):
    memory, features, actors = plain(story)
    memory = dict(memory, refuses=sorted(numbers[page] for page in memory["refuses"]))
    for name in ("state", "owner"):
        moved = [None] * len(numbers)
        for page, value in enumerate(memory[name]):
            moved[numbers[page]] = value
        memory[name] = moved
    told = []
    for kind, fields in actors:
        made = dict(fields)
        for name in PAGE_LISTS:
            value = made.get(name)
            if isinstance(value, list):
                made[name] = sorted(numbers[page] for page in value)
            elif value is not None:
                made[name] = numbers[value]
        told.append((kind, sorted(made.items(), key=str)))
    return repr((sorted(memory.items()), sorted(features.items()), told))
