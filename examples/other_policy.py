"""Another policy without the hang: the same orders under the proposal, and under bits and counts per page.

python examples/other_policy.py [where.json]
"""

from common import cluster, main, where
from group import Group, outcome


def story() -> None:
    with cluster(where()) as lab:
        for policy in ("whole-folio", "per-page"):
            group = Group(lab, "scenarios/03-virtio.toml", policy)
            group.configure(1, 0)
            answer = group.touch(0, 1, seconds=1)
            print(f"the touch of page 1: {outcome(answer)}")
            group.explain()
            print()


if __name__ == "__main__":
    main(story)
