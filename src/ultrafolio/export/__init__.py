"""A verdict for other readers: a text for a mail, other programs' formats, the trace file, and Promela for SPIN."""
