"""Benchmarks: compare whole runs of prometheus-backup with other programs on the same data."""
