"""A story of guest_memfd as a test for the kernel: one C file in the form of a KVM selftest."""
