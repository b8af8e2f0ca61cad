"""Which pages and which guests of a system are interchangeable."""
