"""Only the guest's reboot, which tears its devices down, releases the hang of seed_virtio.py.

python examples/reboot_releases.py [where.json]
"""

import threading
import time

from common import cluster, main, where
from group import Group, outcome, show


def story() -> None:
    with cluster(where()) as lab:
        group = Group(lab, "scenarios/25-reboot-with-device.toml", "whole-folio")
        group.configure(1, 0)
        ended = []
        vcpu = threading.Thread(target=lambda: ended.append(outcome(group.touch(0, 1, seconds=60))))
        vcpu.start()
        time.sleep(1)
        group.print_steps()
        group.explain()
        print("The guest reboots.")
        group.reboot(2)
        vcpu.join()
        group.print_steps(legend=True)
        print(f"the touch that waited: {ended[0]}")
        group.explain()
        answer = group.touch(0, 1, length=16)
        print(f"a touch of page 1 by the guest that runs now: {outcome(answer)}, and reads {show(answer.data)}")


if __name__ == "__main__":
    main(story)
