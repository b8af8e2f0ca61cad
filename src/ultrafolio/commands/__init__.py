"""Commands that are too small for a package of their own."""
