"""Run by test_growth.py: imports each grown copy of the package; prints its error as a JSON string per line, "" for
none."""

import json
import os
import sys

import numpy  # noqa: F401  (once, and not in every child)

for folder in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        sys.path.insert(0, folder)
        said = ""
        try:
            import ultrafolio.check.verdicts.verdict
            import ultrafolio.sim.costs
            import ultrafolio.sim.load
            import ultrafolio.state.validate  # noqa: F401
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        print(json.dumps(said), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
