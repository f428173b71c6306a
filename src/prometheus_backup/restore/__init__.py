"""Restore backups without destroying data in the target.

Open `run.py` first: `Restore.prepare` plans, `Restore.apply` writes.

1. `target.py` reads the state of the target: its blocks, its WAL, and its Prometheus.
2. `placement.py` decides for each block of the backup whether it can be placed; `plan.py` adds
   what retention would delete, and warnings. Both are pure.
3. `staging.py` downloads and checks the blocks in a folder on the target's file system.
4. `run.py` renames each complete block into place and waits until Prometheus has loaded it.

`heal` uses the same placement rules and staging, `drill` the staging.
"""
