"""Fetches and runs the real components that tests, demo and benchmark use; generates parts of docs.

First read `processes` (how a server is started and stopped), then `prometheus` and `seaweedfs`.
Every server listens on 127.0.0.1 only and is stopped by its own pid. Nothing here is part of the
installed program.
"""
