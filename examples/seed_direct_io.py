"""The mail's first hang: direct I/O on a shared page, while the guest touches the page beside it. Where a pin makes the
whole folio accessible, the touch "will hang until the I/O is done", and then goes on.

    python examples/seed_direct_io.py [where.json]
"""

import threading
import time

from common import cluster, main, where
from group import Group, outcome


def story() -> None:
    with cluster(where()) as lab:
        group = Group(lab, "scenarios/01-direct-io.toml", "whole-folio")
        print("The guest writes page 0 to its disk, which takes three seconds.")
        io = threading.Thread(target=group.direct_io, args=(1, 0), kwargs={"hold_us": 3_000_000})
        io.start()
        while not lab.state(group.name).io["flying"].any():
            time.sleep(0.02)
        print("Meanwhile the guest touches page 1, and its caller waits one second.")
        answer = group.touch(0, 1, seconds=1)
        group.print_steps()
        print(f"the touch: {outcome(answer)}")
        group.explain()
        print("It tries again, and waits longer than the I/O takes.")
        answer = group.touch(0, 1, seconds=30)
        io.join()
        group.print_steps(legend=True)
        print(f"the touch: {outcome(answer)}")
        group.explain()


if __name__ == "__main__":
    main(story)
