"""Freedom from permanent stalls for every size of a system, by ranks of resources. Needs the extra `prove`."""
