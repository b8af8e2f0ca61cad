"""The library: the commands as functions that take names or objects and return results."""

from ultrafolio.check.verdicts.verdict import Finding, Result
from ultrafolio.errors import InputError

from .all_policies import search
from .calls import check, explore, policies, run, scenarios, sweep
from .explorer import Explorer
from .named import Policy, Scenario
from .results import Policies, Run, Search, Sweep

__all__ = [
    "Explorer", "Finding", "InputError", "Policies", "Policy", "Result", "Run", "Scenario", "Search", "Sweep",
    "check", "explore", "policies", "run", "scenarios", "search", "sweep",
]  # fmt: skip
