"""What monitoring is told: of a run, from its events; of a repository, from what lies in it.

`families` is the table of all metrics. Nothing here imports prometheus-client, or opens a
connection, before something is to be shown or sent.
"""
