"""The backups in a store: their format, how one is committed, verified and deleted.

Open `repository.py` first: `Repository` lists, reads and deletes whole backups. `claim.py` reserves
the id of a new backup and commits it. `results.py` reads and writes verification results.

The other modules are pure. They define the format (docs/repository-format.md): names of objects in
`layout.py`, JSON documents in `manifest.py`, `fingerprint.py` and `verification.py` (all based on
`document.py`). `rotation.py` decides which part of a backup to verify next, and `names.py` which
backups a name on the command line means.
"""
