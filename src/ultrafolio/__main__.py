"""`python -m ultrafolio`: the command line."""

from .cli import main

main()
