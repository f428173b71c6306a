"""Obtains and runs the real components that tests, demo and benchmark use.

Every server listens on 127.0.0.1 only, and is stopped by its own pid. Nothing here is part of the
installed program.
"""
