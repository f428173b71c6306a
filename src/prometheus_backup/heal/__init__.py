"""Repair a data directory: replace bad blocks, with as few lost samples as possible.

Open `run.py` first: `Heal.preview` finds and plans, `Heal.apply` repairs.

1. `scan.py` checks every block and describes the bad ones. `head.py` reads the files of the WAL and
   the head. What is wrong with them is decided by pure code: `head_plan.py`, and `record_plan.py`
   for the records in them.
2. `candidates.py` finds blocks of backups that can replace them.
3. `plan.py` chooses a remedy for each bad block. It is pure, and uses the placement rules of
   `restore` for blocks that cover the time range of another.
4. `replacement.py` downloads copies, or rebuilds small files with `rebuild.py`, and checks them.
5. `swap.py` moves bad blocks to a quarantine and the replacements into place, by renames only.
"""
