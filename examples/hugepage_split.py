"""One page of a huge page becomes shared, which splits the folio. The hypervisor keeps a reference for each page that
it maps, and nobody can tell whose a reference is: the kernel spins, under the lock, for ever. Without it, the split is
done.

    python examples/hugepage_split.py [where.json]
"""

from common import cluster, main, where
from group import Group, outcome

SCENARIO = "scenarios/guest_memfd/g17-one-reference-per-mapping.toml"
VMM = 1


def story() -> None:
    with cluster(where()) as lab:
        for policy in ("reference-per-mapping", "gmem-hugetlb-2025-12"):
            group = Group(lab, SCENARIO, policy)
            print("The VMM converts page 1 to shared; its caller waits 2 s.")
            answer = group.convert(VMM, 1, private=False, seconds=2)
            group.print_steps(legend=policy.startswith("gmem"))
            print(f"the conversion: {outcome(answer)}")
            group.explain()


if __name__ == "__main__":
    main(story)
