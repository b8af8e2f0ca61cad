"""The ultravisor's control blocks: their bytes, the calls in them, and the image of a guest. No network."""
