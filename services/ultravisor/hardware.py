"""The hardware of a guest_memfd group: the verbs of its machine, and what the guest's processor is answered at a page.

The functions are those of model/guest_memfd; a call is part of a step of the host, of the guest or of a device.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import msgspec

from services.ultravisor.commits import Commits, Part, raise_unless_stale
from ultrafolio.engine.load import interpreted
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.layout import BY_DEVICE
from ultrafolio.model.guest_memfd.machines import VERBS
from ultrafolio.model.layout import TOUCH
from ultrafolio.nouns import plural
from ultrafolio.rpc.errors import StatusError
from ultrafolio.state.crossing import WALLS, Result

_WALLS = WALLS[GUEST_MEMFD.name]
VERBS_OF = {
    "host": _WALLS["host"],
    "guest": tuple(name for name in _WALLS["guest"] if name not in ("host_access", "close_pipe")),
    "device": ("host_access",),
}
"""Role of the caller -> what it may ask the hardware in a step."""
ARGUMENTS = {verb: words.count(",") for verb, words in VERBS.items()}
"""Verb -> number of its arguments, of which the first is the page; of the functions that are no verbs: 1."""
MOST = BY_DEVICE
"""Largest value of an argument beside the page: how the host accesses it; the others are 0 or 1."""


class Hardware(Commits):
    """What the hardware says of the pages of one group."""

    def call(self, verb: str, arguments: Sequence[int], part: Part) -> Result:
        """Call a verb as part of a step. Lost: the turn of the step is over. NotTaken: the offered turn was not
        taken."""
        with self._lock, self._clean():
            while True:
                code = getattr(interpreted(GUEST_MEMFD), verb)(self.view.live, *arguments)
                result = Result(int(code or 0))
                answer = self._commit(patches=self.view.patches(), part=part, result=result)
                if answer.status == "done" and not answer.journal:
                    return result
                if answer.journal:
                    return msgspec.msgpack.decode(answer.journal[0], type=Result)
                raise_unless_stale(answer, part)

    def would_end(self, instructions: Sequence[tuple[int, int, int]]) -> list[bool]:
        """Returns, per instruction (guest, page, operation), whether the hardware would let it complete now: a touch of
        a page that the tables map as the guest uses it. A request for a conversion is for the VMM to answer."""
        with self._lock, self._clean():
            self._read()
            reachable = interpreted(GUEST_MEMFD).is_reachable
            return [op == TOUCH and bool(reachable(self.view.live, page)) for _, page, op in instructions]


def checked(role: str, verb: str, arguments: Sequence[int], pages: int) -> tuple[int, ...]:
    """Returns the arguments of a call. Raises StatusError for a verb that is not the caller's, or other arguments."""
    mine = VERBS_OF.get(role, ())
    if verb not in mine:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "NO_SUCH_VERB",
            f"a verb of the machine, asked by {role}",
            value=verb,
            allowed=", ".join(mine),
        )
    wanted = ARGUMENTS.get(verb, 1)
    fits = len(arguments) == wanted and 0 <= arguments[0] < pages and all(0 <= one <= MOST for one in arguments[1:])
    how = (arguments[1] == BY_DEVICE) == (role == "device") if fits and verb == "host_access" else True
    if not fits or not how:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_ARGUMENTS",
            f"arguments of {verb}, asked by {role}",
            value=", ".join(map(str, arguments[: wanted + 1])) + (", ..." if len(arguments) > wanted + 1 else ""),
            allowed=f"{plural(wanted, 'argument')}: a page, 0 to {pages - 1}; then 0 to {MOST}"
            + (f", {BY_DEVICE} for a device alone" if verb == "host_access" else ""),
        )
    return tuple(arguments)
