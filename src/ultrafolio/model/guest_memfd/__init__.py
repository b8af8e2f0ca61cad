"""The design guest_memfd: a page is converted in place between private and shared, as queued for Linux 7.4.

docs/model.md, section 9, states it. Folios, references, batches and threads are those of model/rules.
"""
