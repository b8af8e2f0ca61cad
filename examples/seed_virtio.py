"""The mail's "even worse": a virtio ring is pinned as long as its device is configured, and the guest touches the page
beside it. Where a pin makes the whole folio accessible, that touch never ends.

    python examples/seed_virtio.py [where.json]
"""

from common import cluster, main, where
from group import Group, outcome


def story() -> None:
    with cluster(where()) as lab:
        group = Group(lab, "scenarios/03-virtio.toml", "whole-folio")
        group.touch(0, 1, data=b"known to the guest alone")
        group.show_page(1)
        print("The guest configures its device: the host pins page 0 for good.")
        group.configure(1, 0)
        group.print_steps()
        group.show_page(1)
        print("The guest touches page 1, and its caller waits two seconds.")
        answer = group.touch(0, 1, seconds=2)
        group.print_steps(legend=True)
        print(f"the touch: {outcome(answer)}")
        group.explain()


if __name__ == "__main__":
    main(story)
