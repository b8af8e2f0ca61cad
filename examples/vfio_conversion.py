"""A guest asks for a page as private that VFIO has pinned for DMA. Every conversion is refused with -EAGAIN, and the
VMM asks again for ever; where it ends its own mapping first, the request goes through.

    python examples/vfio_conversion.py [where.json]
"""

from common import cluster, main, where
from group import Group, outcome

SCENARIO = "scenarios/guest_memfd/g16-vfio-pin.toml"
VCPU, PIN = 0, 1


def story() -> None:
    with cluster(where()) as lab:
        group = Group(lab, SCENARIO, "gmem-7.4")
        print("VFIO maps page 0, which the guest shares: a long-term pin.")
        group.configure(PIN, 0)
        print("The guest asks for page 0 as private; its caller waits 2 s.")
        answer = group.unshare(VCPU, 0, seconds=2)
        group.print_steps(legend=True)
        print(f"the request: {outcome(answer)}")
        group.explain()
        print("The VMM ends the mapping, and the request goes on.")
        group.release(PIN)
        print(f"the request: {outcome(group.unshare(VCPU, 0))}")
        group.explain()
        group = Group(lab, SCENARIO, "unmap-first")
        group.configure(PIN, 0)
        print("This VMM ends its mapping before it asks for the conversion.")
        answer = group.unshare(VCPU, 0)
        group.print_steps()
        print(f"the request: {outcome(answer)}")


if __name__ == "__main__":
    main(story)
