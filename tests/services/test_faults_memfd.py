"""A part dies in a step of guest_memfd, or an answer is lost: every step is applied once, on the hardware, too."""

import pytest

import memfd_cases
from store_faults import InMemory
from test_faults import crash_everywhere

OF_MEMFD = [
    ("g16-vfio-pin", "unmap-first", "software"),
    ("g21-part-of-a-huge-page", "gmem-hugetlb-2025-12", "tdx"),
    ("g46-unshare-under-dma", "pkvm", "pkvm"),
    ("page-in-a-pipe", "gmem-7.4", "snp"),
]


@pytest.mark.parametrize(("name", "policy", "machine"), OF_MEMFD)
def test_a_crash_at_every_call_of_a_conversion(tmp_path, name, policy, machine):
    system = memfd_cases.system(name, policy, machine)
    assert crash_everywhere(InMemory(0), tmp_path, system, 1, 40) > 100
