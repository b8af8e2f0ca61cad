"""Linux mm and KVM as a service: folios, references and pins, writeback, locks, the arch bit."""
