"""Compare the rules with the kernel's C: functions are cut from a source tree of the user, and run in user space."""
