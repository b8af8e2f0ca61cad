"""Sweeps: a plan names many cells, each cell is one simulation, a store keeps every result once.

plan      what to sweep: axes, filters, definitions, enumerated lazily
planfile  plans from TOML, every mistake told
cells     the seam to the simulator: resolve a cell, run it, digest the rules
key       the identity of a cell's result
durable   files that are there whole or not at all
segment   append-only Arrow files of finished cells
store     a folder of segments for one plan, written by one sweep at a time
results   the merge of the segments into one Parquet file, sorted by key
work      what a worker does with a span of cells
schedule  which span goes out next, and what happens to the spans of dead workers
executor  who does the work: forked processes, or this process
queue     who does the work: Celery workers anywhere; submit, fetch, come back
pace      chunks of equal time, from a sample of the cells
job       a submitted plan in Redis, as clients and workers share it
chunk     what a worker does with a chunk
deposit   where results wait to be fetched: Redis, a folder, an object store
crew      Celery workers of our own
progress  what the terminal shows meanwhile
drive     one sweep from plan to results
explain   status of a store, and why a cell would run again
command   the click group ``sweep``
"""
