"""Backups of a Prometheus TSDB: consistent, incremental, verified, kept by policy, restorable."""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    # Lazy: reading package metadata costs more than the rest of `--help`'s imports together.
    if name == "__version__":
        from importlib.metadata import version

        return version("prometheus-backup")
    raise AttributeError(name)
