"""Every interleaving of a small system: how states are kept, found again and counted."""
