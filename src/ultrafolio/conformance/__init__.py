"""The conformance suite for engines over the rules: its cases, and the engines of this package."""
