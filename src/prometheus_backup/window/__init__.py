"""Look into the past: start a real Prometheus on the blocks of a time range.

Open `run.py` first: it downloads the blocks, starts Prometheus, and removes everything at the end.
`plan.py` decides which backup and which blocks, and makes the address of the page.
"""
