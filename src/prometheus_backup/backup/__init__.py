"""Back up a running Prometheus: `backup`, and the preflight `check`.

Start with `run.py`: it takes the host lock, checks the source and the repository, claims a backup
ID, has a snapshot taken, stores it, verifies it, commits the manifest and applies retention.

Data flows from the snapshot (`snapshot.py`), or the blocks on disk (`blocks.py`, held in
`places.py`), through the plan of what to upload and what to copy (`plan.py`, pure) to the
repository (`upload.py`). `soundness.py` finds corrupt blocks, and
`describe.py` builds the manifest. `leftovers.py` cleans up after this run and dead ones.
`check.py` is the preflight, with `probes.py` for the store. `schedule.py` decides when `daily`
starts a run.
"""
