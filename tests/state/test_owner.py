"""One replica owns a group: what a former owner sends late is refused by the store itself, in both stores."""

import pytest

from store_cases import Stored
from store_faults import InMemory, InRedis
from ultrafolio.conformance.suite import system_of
from ultrafolio.redis_server import Server
from ultrafolio.state.owner import Ownership, epoch_of, token
from ultrafolio.state.store import Commit, NotOwner, Offer, Patch, Turn

LEASE_MS = 600_000
"""Longer than any test: a lease is over where the test says so."""
CREATED = {"host": {"mm": b"x"}, "ultravisor": {"uv": b"x"}}


@pytest.fixture(scope="module")
def server():
    with Server.start() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def place(request):
    """Stores of the roles on one server."""
    server = request.getfixturevalue("server") if request.param == "redis" else None
    return InRedis(server.url, LEASE_MS) if server else InMemory(LEASE_MS)


class Replicas:
    """Commits of two replicas of each role to one group.

    Each takes the group by `take`, and commits under the ownership that it got last, whatever happened since.
    """

    def __init__(self, place, folder):
        self.place, self.stores, self.engine = place, place.stores, Stored(place.stores, folder)
        self.engine.load(system_of("ring", "per-page").state)
        self.group, self.held, self.lost = self.engine.group, {}, []
        self._number = 0

    def take(self, role, name):
        owned = self.stores[role].take(self.group, name)
        self.held[name] = self.stores[role].under(owned.epoch, lambda: self.lost.append(name))
        return owned

    def commit(self, name, **rest):
        self._number += 1
        return self.held[name].commit(self.group, Commit(str(self._number), f"of {name}", **rest))

    def lease_over(self, role):
        self.place.end_lease(self.group, role)

    def bytes_of(self, section):
        return self.stores["admin"].read(self.group, [section])[section]


@pytest.fixture
def both(place, tmp_path):
    return Replicas(place, tmp_path)


WRITES = {"host": Patch("mm", 0, b"\1"), "ultravisor": Patch("uv", 0, b"\1")}


@pytest.mark.parametrize("role", WRITES)
def test_a_group_has_one_owner_until_its_lease_is_over(both, role):
    assert both.take(role, "first") == Ownership(1, 0)
    with pytest.raises(NotOwner, match="owned by first") as refused:
        both.take(role, "second")
    assert 0 < refused.value.wait_ms <= LEASE_MS and refused.value.owner == "first"
    both.lease_over(role)
    assert both.take(role, "second") == Ownership(2, 0)
    with pytest.raises(NotOwner, match="owned by second"):
        both.take(role, "first")


@pytest.mark.parametrize("role", WRITES)
def test_the_late_write_of_a_paused_owner_is_refused(both, role):
    """The interleaving: the first owner has decided on its write, its lease ends, the second takes the group."""
    both.take(role, "first")
    decided = {"patches": [WRITES[role]], "events": [b"late"]}
    both.lease_over(role)
    both.take(role, "second")
    before = both.bytes_of(WRITES[role].section), len(list(both.stores["admin"].history(both.group)))
    with pytest.raises(NotOwner):
        both.commit("first", **decided)
    assert both.lost == ["first"], "it is told, so that it takes the group anew before its next write"
    with pytest.raises(NotOwner):
        both.commit("first", cached={WRITES[role].section: 1})
    assert (both.bytes_of(WRITES[role].section), len(list(both.stores["admin"].history(both.group)))) == before
    assert both.commit("second", **decided).status == "done"


def test_an_owner_whose_lease_is_over_goes_on_if_nobody_took_the_group(both):
    both.take("host", "first")
    both.lease_over("host")
    assert both.commit("first", patches=[WRITES["host"]]).status == "done"
    with pytest.raises(NotOwner, match="owned by first"):
        both.take("host", "second")


def test_each_commit_renews_the_lease(both):
    both.take("host", "first")
    for _ in range(2):
        both.lease_over("host")
        assert both.commit("first").status == "done"
        with pytest.raises(NotOwner):
            both.take("host", "second")


def test_the_owner_takes_its_group_again_at_once(both):
    """A replica that was started again has the name of the one that died, and what that one sends late is refused."""
    both.take("host", "first")
    died = both.held["first"]
    assert both.take("host", "first") == Ownership(2, 0)
    with pytest.raises(NotOwner):
        died.commit(both.group, Commit("1", "of the dead", patches=[WRITES["host"]]))


def test_a_silent_owner_may_keep_a_group_longer(both):
    both.take("host", "first")
    both.lease_over("host")
    with pytest.raises(NotOwner):
        both.stores["host"].take(both.group, "second", silence_ms=10_000)
    assert both.stores["host"].take(both.group, "second") == Ownership(2, 0)


def test_roles_have_owners_of_their_own(both):
    assert both.take("host", "a host") == both.take("ultravisor", "an ultravisor") == Ownership(1, 0)


# ------------------------------------------------------------------------------------------------- turns
def turn_of(both, name, role="host"):
    return Turn(token(both.held[name].epoch), role, 0, 0, 0)


def test_a_token_names_the_ownership():
    assert epoch_of(token(12)) == 12 and epoch_of(token(0)) == 0 and token(3) != token(3)


def test_what_another_part_writes_for_a_former_owner_is_refused(both):
    """The first host began a step and is paused before it asks the ultravisor: its turn is not over yet."""
    both.take("ultravisor", "uv")
    both.take("host", "first")
    turn = turn_of(both, "first")
    both.lease_over("host")
    assert both.commit("uv").status == "done"
    assert both.stores["host"].take(both.group, "second") == Ownership(2, 0)
    both.held["second"] = both.stores["host"].under(2, lambda: None)
    assert both.commit("uv", token=turn.token, patches=[WRITES["ultravisor"]], journal=(0, b"")).status == "lost"
    both.held["first"] = both.held["first"].under(1, lambda: None)
    with pytest.raises(NotOwner):
        both.commit("first", take=turn)


def test_a_turn_of_a_former_owner_is_over_with_the_ownership(both):
    """The ultravisor has acted for the first host, whose turn lasts longer than its ownership; the second finishes."""
    both.take("ultravisor", "uv")
    both.take("host", "first")
    turn = turn_of(both, "first")
    assert both.commit("first", take=turn).status == "done"
    acted = {"token": turn.token, "patches": [WRITES["ultravisor"]], "journal": (0, b"result")}
    assert both.commit("uv", **acted).status == "done"
    both.lease_over("host")
    both.take("host", "second")
    assert both.commit("uv", token=turn.token, journal=(1, b"late")).status == "lost"
    left = both.commit("second", patches=[WRITES["host"]])
    assert (left.status, left.journal, left.turn.token) == ("left", [b"result"], turn.token)
    mine = turn_of(both, "second")
    assert both.commit("second", take=mine, adopt=True).status == "done"
    with pytest.raises(NotOwner):
        both.commit("first", token=turn.token, events=[b"twice"], release=True)
    assert both.commit("second", token=mine.token, events=[b"step"], release=True).status == "done"


def test_a_turn_that_a_former_owner_offers_is_not_taken(both):
    both.take("ultravisor", "uv")
    both.take("host", "first")
    offer = Offer(turn_of(both, "first"), {"uv": 1}, "host-first", 1)
    both.lease_over("host")
    both.take("host", "second")
    assert both.commit("uv", cached={"uv": 1}, offer=offer, journal=(0, b"")).status == "moved"
    assert both.stores["admin"].turn(both.group) is None
    fresh = Offer(turn_of(both, "second"), {"uv": 1}, "host-second", 1)
    assert both.commit("uv", cached={"uv": 1}, offer=fresh, journal=(0, b"")).status == "done"


# ------------------------------------------------------------------------------------------------- contents
def test_only_the_owner_says_where_the_contents_are(both):
    both.take("ultravisor", "first")
    both.lease_over("ultravisor")
    both.take("ultravisor", "second")
    with pytest.raises(NotOwner):
        both.stores["ultravisor"].settle(both.group, 1, 1)
    both.stores["ultravisor"].settle(both.group, 2, 2)
    both.lease_over("ultravisor")
    assert both.take("ultravisor", "third") == Ownership(3, 2)


def test_only_the_owner_lays_out_its_sections(place):
    stores = place.stores
    for role, sections in CREATED.items():
        group = f"made-by-{role}"
        late = stores[role].under(stores[role].take(group, "first").epoch, lambda: None)
        place.end_lease(group, role)
        mine = stores[role].under(stores[role].take(group, "second").epoch, lambda: None)
        with pytest.raises(NotOwner):
            late.create(group, sections, b"event")
        assert mine.create(group, sections, b"event") and not mine.create(group, sections, b"event")


def test_a_deleted_group_has_no_owner(place):
    stores, group = place.stores, "deleted"
    stores["host"].take(group, "first")
    stores["admin"].delete(group)
    assert stores["host"].take(group, "second") == Ownership(1, 0)
