"""What this machine takes for the steps of the model, and whether its kernel does what the rules say."""
