"""Faults to order: a store whose calls die before or after they took effect, and a group that can be put back."""

from collections import Counter
from copy import deepcopy

from services.host_mm.swap import GIVEN_AWAY
from services.ultravisor.contents import Seal
from store_cases import Stored
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import EXPORTED, NON_SECURE
from ultrafolio.state.events import Again, Steps, decode
from ultrafolio.state.memory import Memory, MemoryStore, _now
from ultrafolio.state.redis import RedisStore

ROLES = ("ultravisor", "host", "guest", "admin")


class Crash(Exception):
    """The caller's process ends here, or the call's answer never arrives."""


class Faults:
    """Counts the calls that go through it, and how commits were answered; one of them fails: before it takes effect, or
    after."""

    def __init__(self):
        self.calls, self.at, self.after = 0, None, False
        self.statuses = Counter()

    def arm(self, at=None, *, after=False):
        self.calls, self.at, self.after = 0, at, after

    def __call__(self, function, *args, **kwargs):
        self.calls += 1
        mine = self.calls == self.at
        if mine and not self.after:
            raise Crash
        result = function(*args, **kwargs)
        if mine:
            raise Crash
        return result


class FaultyStore:
    """A store whose commits and replies go through `faults`."""

    def __init__(self, store, faults):
        self._store, self._faults = store, faults

    def commit(self, group, commit):
        answer = self._faults(self._store.commit, group, commit)
        self._faults.statuses[answer.status] += 1
        return answer

    def reply(self, group, request):
        return self._faults(self._store.reply, group, request)

    def __getattr__(self, name):
        return getattr(self._store, name)


class Breakable(Stored):
    """The three roles over one store; every call between them, and to the store, can fail."""

    def __init__(self, stores, folder):
        self.faults, self.folder = Faults(), folder
        super().__init__({role: FaultyStore(store, self.faults) for role, store in stores.items()}, folder)

    def load(self, state):
        """As Stored, with something in the pages that a guest holds plain."""
        super().load(state)
        for page, uv in enumerate(state.uv if self.meta.design is S390 else ()):
            if uv["state"] not in (NON_SECURE, EXPORTED):
                self.contents.write(page * 4096, 0, bytes([page + 1]) * 4096)

    def ask(self, *asked):
        return self.faults(super().ask, *asked)

    def burst(self, role, actor, op=0, page=0, *, most=64, request=""):
        return getattr(self, role).burst(actor, op, page, most=most, request=request)

    def repeated(self, role, actor, op, page, most, request, wanted):
        """What a client does whose answer did not come: the same request again, then on from where that led."""
        done = self.burst(role, actor, op, page, most=most, request=f"{request}/0")
        while len(done) < wanted:
            more = self.burst(role, actor, most=most - len(done), request=f"{request}/{len(done)}")
            assert more, "it goes on no further"
            done += more
        return done

    def stream(self):
        return list(self.stores["admin"].history(self.group))

    def steps(self):
        """Every step in the group's stream, in order."""
        return flattened(self.stream())

    def plain(self):
        """What every page holds, in memory or in swap, decrypted where it is exported; None where that fails. A page of
        guest_memfd holds nothing here."""
        if self.meta.design is not S390:
            return []
        self.pages.guest_view(0, 0)
        uv = self.pages.view.arrays.uv
        seals, found = self.pages.view.seal, []
        for p, page in enumerate(uv):
            held = self.pages._held(p)
            held = self.swap.read(self.meta.origin, p) if held == GIVEN_AWAY else held
            seal = Seal(int(seals[p]["counter"]), seals[p]["nonce"].tobytes(), seals[p]["tag"].tobytes())
            exported = page["state"] == EXPORTED
            found.append(self.contents.decrypt(self.group, int(page["owner"]), p, seal, held) if exported else held)
        return found


def flattened(events):
    """Every step of a stream, in order."""
    entries = []
    for event in events:
        entry = decode(event.data)
        entries += entries[-entry.entries :] * entry.rounds if isinstance(entry, Again) else [entry]
    return [step for entry in entries if isinstance(entry, Steps) for step in entry.steps]


class InMemory:
    """Stores in this process's memory, and what a group was at some moment."""

    def __init__(self, lease_ms):
        self.memory = Memory()
        self.stores = {role: MemoryStore(self.memory, role, lease_ms=lease_ms) for role in ROLES}

    def keep(self, group):
        return deepcopy(self.memory.groups[group])

    def put_back(self, group, kept):
        self.memory.groups[group] = deepcopy(kept)

    def end_lease(self, group, role):
        """The owner of a group among a role's replicas has sent nothing for a lease."""
        self.memory.groups[group].owners[role].until = _now()


class InRedis:
    """Stores on a server, and what a group was at some moment."""

    def __init__(self, url, lease_ms):
        self.stores = {role: RedisStore(url, role, lease_ms=lease_ms) for role in ROLES}
        self._client = self.stores["admin"]._client

    def keep(self, group):
        keys = list(self._client.scan_iter(f"uf:{{{group}}}:*", count=1000))
        return {key: self._client.dump(key) for key in keys}

    def put_back(self, group, kept):
        with self._client.pipeline(transaction=True) as pipe:
            for key in set(self.keep(group)) - set(kept):
                pipe.delete(key)
            for key, data in kept.items():
                pipe.restore(key, 0, data, replace=True)
            pipe.execute()
        # as an operator does: parts that have seen later revisions go on from here
        self.stores["admin"].accept(group)

    def end_lease(self, group, role):
        """As of InMemory."""
        seconds, micros = self._client.time()
        self._client.hset(f"uf:{{{group}}}:owner:{role}", "until", 1000 * seconds + micros // 1000)
