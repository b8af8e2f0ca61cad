"""Sweeps: a plan names many cells, each cell is one simulation, a store keeps every result once.

plan      what to sweep: axes, filters, definitions, enumerated lazily
planfile  plans from TOML; errors name the place in the file
cells     the simulator as a sweep uses it: resolve a cell, run it, digest the rules
key       the identity of a cell's result
segment   append-only Arrow files of finished cells
store     a folder of segments for one plan, written by one sweep at a time
results   the merge of the segments into one Parquet file, sorted by key
work      compute and store a span of cells in one worker
progress  the progress bar, or lines for a log
drive     one sweep from plan to results
explain   status of a store, and why a cell would run again
local/        forked processes, or this process
distributed/  Celery workers
"""
