"""Shared state of folio groups: compare-and-set stores, and the server that holds them."""
