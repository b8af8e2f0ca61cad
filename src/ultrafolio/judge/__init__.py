"""The kernel's own C as judge of the rules: functions cut from a source tree that the user has, run in user space."""
