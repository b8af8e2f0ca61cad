"""Ultrafolio: which folio policy hangs a secure guest, who holds what, and what does each cost?"""

__version__ = "0.1.0"
