"""The version of the package; CHANGELOG.md lists the changes of each."""

__version__ = "0.5.0"
