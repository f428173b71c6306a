"""Everything that talks to a Prometheus server, or predicts what one does.

Start with `client.py`, the HTTP API; `status.py` reads what a server reports about itself.
`instance.py` checks that a server can be backed up and uses the given data directory, `loading.py`
waits until it has loaded or dropped blocks, and `process.py` starts a server for a drill.

Fingerprints are query results recorded with a backup: `query_time.py` chooses their instant,
`fingerprints.py` runs the queries, `answers.py` compares results. `retention.py` (which blocks
Prometheus deletes) and `promql.py` (durations and ranges) are pure.
"""
