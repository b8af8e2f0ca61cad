"""Which pages and which guests of a system are alike, so that one state may stand for several."""
