"""A hostile host changes a byte of an exported page: the import fails, the VMM gets -EINVAL, the guest ends.

python examples/tampered_page.py [where.json]
"""

from common import cluster, main, where
from group import Group, outcome


def story() -> None:
    with cluster(where()) as lab:
        group = Group(lab, "scenarios/34-tampered-page.toml", "per-page")
        group.show_page(0)
        print("The host changes the first bytes of page 0, and the guest touches it.")
        group.start(1, 0)
        answer = group.touch(0, 0)
        group.print_steps(legend=True)
        print(f"the touch: {outcome(answer)}")
        group.explain()


if __name__ == "__main__":
    main(story)
