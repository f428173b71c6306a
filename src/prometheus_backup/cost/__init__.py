"""Estimate what backups cost on S3, for each storage class, under a retention policy.

Open `estimate.py` first: it reads the size of the data from the repository, the data directory or
the options, and calculates one month for each strategy. All other modules are pure:
`lifetimes.py` simulates which nightly backups a policy keeps and for how long, `prices.py` holds
the list prices of the storage classes, and `model.py` multiplies both.
"""
