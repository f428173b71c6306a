"""Read and check TSDB files. Blocks are never changed here.

Open `verification.py` first: `check_block` returns a `BlockReport` with the faults (`faults.py`)
and counts of one block, and `parallel.py` checks several blocks at once. `series.py` reads the
series entries of the index in batches, and `chunks.py` checks the chunks of each batch. `index.py`,
`postings.py`, `meta.py` and `tombstones.py` check the rest.

All of them read through `reading.py`. `entries.py` and `varints.py` decode many numbers at once
with NumPy, which is imported only when an index is read. `block.py` only lists the files of a
block.
"""
