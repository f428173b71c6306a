"""Which sample times can be recovered, from which backups, and what is missing.

Start with `plan.py`. Its input is the time spans that each backup covers, which the repository
reads from the manifests; its output is a `Timeline`: stretches, holes, missing backups and what
retention will remove. Everything here is pure. `cli/commands/timeline.py` draws it.
"""
