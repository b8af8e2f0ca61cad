"""The definition: layout, rules, policies, properties, scenarios. The rules exist here and nowhere else."""
