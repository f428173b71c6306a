"""Verify that stored backups are still what was backed up; check blocks on this machine.

Open `run.py` first: `Verifier` takes backups, one level and perhaps a part of the rotation, and
records one result for each backup in the repository. The levels build on each other:

- `objects.py` compares sizes with a listing, and bytes with the manifest (`size`, `checksum`).
- `checksums.py` compares the checksums that the store keeps (`stored`).
- `blocks.py` downloads blocks into a scratch directory and checks their structure (`tsdb`).

`inspect.py` runs the same check of blocks on a local directory, without a repository.
"""
