"""The judge of the design guest_memfd: KVM's functions for memory of two backings, as Linux 6.8 to 6.12 have them."""
