"""How long a test waits before it calls something hung: never a measure of speed."""

# Seconds. A machine with other work takes several times as long as an idle one.
NEVER = 60
# Seconds, for an answer that must come while calls with a deadline of NEVER still wait.
EARLIER = NEVER / 3
# Seconds, for clients under faults. Other programs may leave this machine a hundredth of a processor.
HUNG = 5 * NEVER
