"""Prove that a backup can be restored, by restoring it and querying a real Prometheus.

Open `run.py` first: `Drill.run` drills one backup and records the result in the repository.

`plan.py` decides which blocks to restore, which of them Prometheus must load, and which recorded
queries (fingerprints) can be checked; it also judges the results. `run.py` downloads the blocks to
a scratch directory, starts Prometheus on them, and compares its answers with those of the source.
It then stops Prometheus and removes the files.
"""
