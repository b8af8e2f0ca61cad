"""The version of the package; CHANGELOG.md says what each brought."""

__version__ = "0.1.0"
