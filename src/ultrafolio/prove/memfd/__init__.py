"""What a proof about the design guest_memfd needs beside its rules: configurations, facts, counts, initial states."""
