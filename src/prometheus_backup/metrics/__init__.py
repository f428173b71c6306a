"""Metrics for monitoring: of each run, from its events; of the repository, from its contents.

Start with `families.py`, the table of all metrics. `run.py` adds up the events of a run;
`state.py` computes metrics from the entries of the repository. `textfile.py`, `push.py` and
`exporter.py` publish the samples; `exposition.py` formats them. `cli/monitoring.py` connects
these parts. prometheus-client is imported only when samples are published.
"""
