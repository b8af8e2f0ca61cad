"""A scenario at other sizes: another number of vCPUs, another order of its folios.

vcpus   the first N vCPUs of the scenario; where it has fewer, further copies of its last one, each on a free CPU
order   every folio has this order; what is written per page is cut, or goes on with the value of the folio's last page;
        a page number keeps its folio and its place in it

A size is not possible where an actor or a list of [memory] names a page that it lacks, where an actor comes after a
vCPU that it lacks, or where the scenario's design has no folio of the order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from ..errors import InputError, one_of
from ..fields import Field
from .designs import DESIGNS
from .layout import VCPU
from .scenario import MEMORY, TABLES, Scenario

BOUNDS = {"vcpus": (1, 16), "order": (int(MEMORY["folios"].low), int(MEMORY["folios"].high))}
"""What can vary, the slowest first, and from where to where."""
PER_PAGE = ("state", "owner")
"""Fields of [memory] that hold one value, or one for each page. A design may lack some."""
_PAGE = MEMORY["refuses"]
_RANGE = re.compile(r"\d{1,4}(\.\.\d{1,4}|(,\d{1,4})*)", re.ASCII)


def parse_range(text: str) -> tuple[str, list[int]]:
    """(name, values in ascending order) of "vcpus=1..4", "order=2" or "order=0,2,9". InputError otherwise."""
    name, equals, given = text.partition("=")
    if not equals:
        raise InputError("--vary", value=text, allowed=_allowed(*BOUNDS))
    if name not in BOUNDS:
        raise one_of("--vary", name, BOUNDS)
    least, most = BOUNDS[name]
    numbers = [int(word) for word in re.findall(r"\d+", given)] if _RANGE.fullmatch(given) else []
    if not numbers or not all(least <= number <= most for number in numbers):
        raise InputError(f"--vary {name}", value=given, allowed=_allowed(name))
    if ".." in given and numbers[0] > numbers[1]:
        raise InputError(f"--vary {name}", value=given, allowed=_allowed(name), cause="the range ends before it begins")
    if len(set(numbers)) < len(numbers) and ".." not in given:
        raise InputError(f"--vary {name}", value=given, allowed="each number once")
    return name, list(range(numbers[0], numbers[1] + 1)) if ".." in given else sorted(numbers)


def _allowed(*names: str) -> str:
    """Returns in words the forms of --vary for these names."""
    forms = (
        f"{name}=A..B, {name}=A or {name}=A,B,C with numbers from {BOUNDS[name][0]} to {BOUNDS[name][1]}"
        for name in names
    )
    return "; ".join(forms)


def sizes(ranges: Sequence[str]) -> list[dict[str, int]]:
    """All combinations of the ranges, the smallest first: fewer vCPUs before more, then lower orders before higher."""
    given: dict[str, list[int]] = {}
    for text in ranges:
        name, values = parse_range(text)
        if name in given:
            raise InputError("--vary", value=" ".join(ranges), allowed=f"{name} once")
        given[name] = values
    names = [name for name in BOUNDS if name in given]
    return [dict(zip(names, values, strict=True)) for values in product(*(given[name] for name in names))]


def sized(story: Scenario, vcpus: int | None = None, order: int | None = None) -> Scenario:
    """The scenario at this size. InputError, with the reason alone, where it is not possible."""
    if vcpus is not None:
        story = _with_vcpus(story, vcpus)
    return story if order is None else _with_order(story, order)


# --------------------------------------------------------------------------------------------------- vCPUs
def _with_vcpus(story: Scenario, wanted: int) -> Scenario:
    """Returns the scenario with `wanted` vCPUs: the first ones, or copies added. Raises InputError if it cannot be."""
    places = [n for n, (kind, _) in enumerate(story.actors) if kind == VCPU]
    if not places:
        raise InputError("the scenario has no vCPU to copy")
    left_out = set(places[wanted:])
    actors = [actor for n, actor in enumerate(story.actors) if n not in left_out]
    absent = {f"vcpu {n}" for n in range(wanted, len(places))}
    for kind, actor in actors:
        if actor.get("after") in absent:
            name = DESIGNS[story.design].kinds[kind]
            raise InputError(f"actor {name} comes after {actor['after']}, which does not exist with vcpus={wanted}")
    more = wanted - len(places)
    if more > 0:
        last = places[-1]
        cpus = _free_cpus(actors, TABLES[story.design].actors["vcpu"]["cpu"])
        if len(cpus) < more:
            raise InputError("there is no free CPU number for each further vCPU")
        copies = [(VCPU, {**actors[last][1], "cpu": cpu}) for cpu in cpus[:more]]
        actors[last + 1 : last + 1] = copies
    return replace(story, actors=actors)


def _free_cpus(actors: Sequence[tuple[int, Mapping[str, Any]]], field: Field) -> list[int]:
    """The CPU numbers within a field's bounds that no actor names, in ascending order."""
    used = {actor["cpu"] for _, actor in actors if "cpu" in actor}
    return [cpu for cpu in range(int(field.low), int(field.high) + 1) if cpu not in used]


# --------------------------------------------------------------------------------------------------- order
def _with_order(story: Scenario, order: int) -> Scenario:
    """Returns the scenario with every folio of this order, and its page numbers adapted. Raises InputError if a design
    has no such folio."""
    known, kinds = TABLES[story.design], DESIGNS[story.design].kinds
    if order > known.memory["folios"].high:
        raise InputError(
            f"a scenario of the design {story.design} has no folio of order {order}: "
            f"{known.memory['folios'].high:g} is the highest"
        )
    pages = _Pages(story.memory["folios"], order)
    memory = pages.of_table(story.memory, known.memory)
    memory["folios"] = [order] * len(story.memory["folios"])
    for name in PER_PAGE:
        if name in memory:
            memory[name] = pages.pattern(memory[name])
    actors = [(kind, pages.of_table(actor, known.actors[kinds[kind]])) for kind, actor in story.actors]
    return replace(story, memory=memory, actors=actors)


class _Pages:
    """Where the pages of folios of these orders are once every folio has the order `order`."""

    def __init__(self, orders: Sequence[int], order: int) -> None:
        self.orders, self.order = orders, order
        self.places = [(folio, at) for folio, was in enumerate(orders) for at in range(1 << was)]

    def moved(self, page: int) -> int:
        """The new number of a page."""
        folio, at = self.places[page]
        if at >> self.order:
            raise InputError(f"page {at} of folio {folio} does not exist at order {self.order}")
        number = (folio << self.order) + at
        if number > _PAGE.high:
            raise InputError(
                f"page {at} of folio {folio} would be page {number} at order {self.order}, and "
                f"{_PAGE.high:g} is the last that an actor can name"
            )
        return number

    def of_table(self, table: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
        """A copy of the table with the new number of every page that it names."""
        made = dict(table)
        for name, field in fields.items():
            value = table.get(name)
            if _names_pages(field) and value is not None:
                made[name] = [self.moved(page) for page in value] if isinstance(value, list) else self.moved(value)
        if isinstance(table.get("page"), int) and "pages" in fields:
            self.area(table["page"], table["pages"])
        return made

    def area(self, page: int, length: int) -> None:
        """InputError where `length` pages from `page` on would not be one after the other."""
        first = self.moved(page)
        for n in range(1, length):
            if self.moved(page + n) != first + n:
                raise InputError(
                    f"pages {page} to {page + length - 1} of the scenario lie in several folios, and are "
                    f"not one after the other at order {self.order}"
                )

    def pattern(self, values: Sequence[Any]) -> list[Any]:
        """What is written per page: each folio's values cut, or continued with its last one."""
        if len(values) == 1:
            return list(values)
        made, at = [], 0
        for was in self.orders:
            mine = values[at : at + (1 << was)]
            made += [mine[min(n, len(mine) - 1)] for n in range(1 << self.order)]
            at += 1 << was
        return made


def _names_pages(field: Field) -> bool:
    """Whether the numbers in a field are page numbers: it has their bounds."""
    return field.kind in ("int", "ints") and (field.low, field.high) == (_PAGE.low, _PAGE.high)
