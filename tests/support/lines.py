"""Counts lines of source files."""

import re


def code_lines(file):
    """Lines of code, without docstrings, comments and imports."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", file.read_text())
    text = re.sub(r"^(?:from|import) [^(\n]*(?:\((?:.|\n)*?\))?", "", text, flags=re.MULTILINE)
    return sum(1 for line in text.split("\n") if line.strip() and not line.strip().startswith("#"))
