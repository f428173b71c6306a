"""Decide which backups to keep, and delete the others.

Open `policy.py` first: it is pure, takes the dates of the backups and returns for each one whether
to keep it and why. `prune.py` makes a plan from the entries of a repository, including what
interrupted runs left, and applies it.
"""
