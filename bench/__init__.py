"""Benchmarks: whole runs of prometheus-backup beside other tools, on the same bytes."""
