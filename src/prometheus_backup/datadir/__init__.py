"""Local directories: locks, scratch folders, and checks of the file system.

Start with `lock.py`: it allows one run at a time on a Prometheus data directory, and keeps a record
of what each run must clean up. `scratch.py` gives drills and verifications an empty folder that is
removed at the end. `filesystem.py` checks permissions, owner and free space before blocks are moved
into a data directory, and sets their owner and modes.
"""
