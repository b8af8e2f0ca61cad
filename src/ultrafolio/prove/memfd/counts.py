"""What numbers of a page, and the lock, are the sum of: what each thread has of them, by where it is."""

from __future__ import annotations

from collections.abc import Callable

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.prove import terms
from ultrafolio.prove.counts import Count, Share
from ultrafolio.prove.facts import View
from ultrafolio.prove.paths import Place
from ultrafolio.prove.rules import Rules
from ultrafolio.prove.terms import Value

from .facts import mapped, mutex, pinning
from .places import ALONE, DEVICES, SHARING, USING


def _referenced(kinds: tuple[int, ...]) -> Share:
    """The pages on which a device of these kinds has a reference: those that it pinned, and the one that it looks at a
    second time."""

    def share(rules: Rules, v: View, place: Place, page: Value) -> Value:
        end = terms.plus(pinning(v), 1 if place.pc == GUP_RECHECK else 0)
        return terms.both(place.kind in kinds, terms.within(v.page, page, end))

    return share


def _granted(rules: Rules, v: View, place: Place, page: Value) -> Value:
    return terms.both(place.kind in DEVICES, terms.within(v.page, page, pinning(v)))


def _own(v: View, page: Value) -> Value:
    """The reference of a fault."""
    return terms.both(terms.truth(v.task("ref")), terms.equal(pinning(v), page))


def _plain(rules: Rules, v: View, place: Place, page: Value) -> Value:
    if place.pc == PUT:
        return terms.equal(v.page, page)
    own = False if place.kind == VCPU else _own(v, page)
    return terms.any_of((own, _referenced((SPLICE,))(rules, v, place, page)))


def _kvms(rules: Rules, v: View, place: Place, page: Value) -> Value:
    return terms.both(place.kind == VCPU, _own(v, page))


def _not_granted(rules: Rules, v: View, place: Place, page: Value) -> Value:
    """A reference that is no granted pin, and not KVM's."""
    if place.pc == PUT:
        return terms.equal(v.page, page)
    if place.pc == GUP_RECHECK:
        return terms.equal(pinning(v), page)
    return False if place.kind == VCPU else _own(v, page)


def _used(rules: Rules, v: View, place: Place, page: Value) -> Value:
    """What a device uses."""
    first = v.mine("actor.page")
    return terms.both(place.pc in USING, terms.within(first, page, terms.plus(first, v.mine("actor.n"))))


def _uses(kind: int) -> Share:
    return lambda rules, v, place, page: terms.both(place.kind == kind, _used(rules, v, place, page))


def _idle(rules: Rules, v: View, place: Place, page: Value) -> Value:
    """A granted pin that is not used."""
    return terms.both(_granted(rules, v, place, page), terms.negate(_used(rules, v, place, page)))


def _at(places: tuple[int, ...]) -> Share:
    return lambda rules, v, place, page: place.pc in places


def _less(first: str, *others: str) -> Callable[[View, Value], Value]:
    """A field, less others."""

    def value(v: View, page: Value) -> Value:
        total = v.read(first, page)
        for name in others:
            total = terms.minus(total, v.read(name, page))
        return total

    return value


def _of_mappings(v: View, page: Value) -> Value:
    """The reference of KVM's mapping of a page."""
    return terms.ite(mapped(v, page), 1, 0) if v.cfg["hold"] == HOLD_MAPPING else 0


def _ungranted(v: View, page: Value) -> Value:
    total = _less("mm.pins", "mm.granted", "mm.kvm")(v, page)
    return terms.plus(terms.plus(total, v.read("mm.longs", page)), v.read("mm.spec", page))


KVMS = "references of KVM"
COUNTS = (
    Count("short pins", _less("mm.pins"), _referenced((DISK,))),
    Count("long pins", _less("mm.longs"), _referenced((PIN,))),
    Count("plain references of others than KVM", _less("mm.spec", "mm.kvm"), _plain),
    Count(KVMS, lambda v, p: terms.minus(v.read("mm.kvm", p), _of_mappings(v, p)), _kvms),
    Count("granted pins", _less("mm.granted"), _granted),
    Count("references that are no granted pins", _ungranted, _not_granted),
    Count("I/O in flight", _less("io.flying"), _uses(DISK)),
    Count("DMA mappings", _less("io.dma"), _uses(PIN)),
    Count("granted pins that no device uses", _less("mm.granted", "io.flying", "io.dma"), _idle),
    Count("faults that share the lock", lambda v, p: terms.most(0, terms.minus(0, mutex(v))), _at(SHARING)),
    Count("the lock, held alone", lambda v, p: terms.ite(terms.below(0, mutex(v)), 1, 0), _at(ALONE)),
)
