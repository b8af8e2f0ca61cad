"""A verdict in other formats: text for a mail, Mermaid, ITF, TAP, the trace file, Promela for SPIN."""
