"""From a graph to what is said of it: properties, leads-to, stalls, certified stories."""
