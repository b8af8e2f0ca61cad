"""The search over all policies of a design: which satisfy every scenario, and which choices cannot."""
