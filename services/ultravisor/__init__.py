"""The ultravisor service: control blocks, the life cycle of configurations and processors, pages and their contents."""
