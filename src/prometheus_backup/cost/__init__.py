"""Estimate what backups store and cost on S3: both layouts, each storage class, a policy.

Open `estimate.py` first: it reads the size of the data from the repository, the data directory or
the options, and compares the layouts. All other modules are pure: `compaction.py` knows which
blocks a Prometheus has, `simulation.py` how long backups and archived blocks are kept, `tsdb.py`
how large they are, `lifetimes.py` puts these together, `prices.py` holds the list prices of the
storage classes, `model.py` multiplies, and `forecast.py` begins with the backups that exist.
"""
