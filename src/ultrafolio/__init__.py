"""Ultrafolio: which folio policy hangs a secure guest, who holds what, and what does each cost?

    import ultrafolio as uf
    uf.check("03-virtio", policy="whole-folio")

docs/api.md lists the calls. Each is imported on first use, since the rules alone need only numpy.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .api import (
        Explorer,
        Finding,
        InputError,
        Policies,
        Policy,
        Result,
        Run,
        Scenario,
        Search,
        Sweep,
        check,
        explore,
        policies,
        run,
        scenarios,
        search,
        sweep,
    )

__all__ = [
    "Explorer", "Finding", "InputError", "Policies", "Policy", "Result", "Run", "Scenario", "Search", "Sweep",
    "__version__", "check", "explore", "policies", "run", "scenarios", "search", "sweep",
]  # fmt: skip
CALLS = frozenset(__all__) - {"__version__"}


class _Package(ModuleType):
    """This package. Some calls have the name of a subpackage: `uf.check` is always the call, also after an import of
    the subpackage, and `from ultrafolio.check import ...` finds the subpackage."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in CALLS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in CALLS:
            from . import api

            return getattr(api, name)
        raise AttributeError(f"module 'ultrafolio' has no attribute {name!r}")


sys.modules[__name__].__class__ = _Package
