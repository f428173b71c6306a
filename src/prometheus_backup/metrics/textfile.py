"""A metrics file for node_exporter's textfile collector, updated by each run."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_backup.metrics.exposition import parse, text
from prometheus_backup.metrics.families import COMMAND, PREFIX, REPOSITORY, Sample

_LAST_SUCCESS = f"{PREFIX}last_success_timestamp_seconds"


def update_textfile(path: Path, run: Sequence[Sample], state: Sequence[Sample] | None) -> None:
    """Put the samples of a run, and of the repository unless None, into the file.

    Samples of other commands and repositories are kept, and after a failed run also the time of the
    last success. The file is replaced atomically and readable by all users. Raises OSError.
    """
    with _exclusive_lock(path.parent):
        old = _read(path)
        samples = [*run, *(state or ())]
        new = {(s.name, *_group(s.labels)) for s in samples}
        replaced = {_group(s.labels) for s in samples}
        kept = [
            s
            for s in old
            if _group(s.labels) not in replaced
            or (s.name == _LAST_SUCCESS and (s.name, *_group(s.labels)) not in new)
        ]
        _replace(path, text([*kept, *samples]))


def _group(labels: Mapping[str, str]) -> tuple[str, str]:
    """Return the repository and command of a sample; no command for repository metrics."""
    return labels.get(REPOSITORY, ""), labels.get(COMMAND, "")


def _read(path: Path) -> list[Sample]:
    """Return the samples in the file; none if it is absent or not a metrics file."""
    try:
        return list(parse(path.read_text()))
    except (FileNotFoundError, ValueError):
        return []


def _replace(path: Path, document: str) -> None:
    # Not *.prom: the collector would read the half-written file.
    staged = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with staged.open("w") as file:
            file.write(document)
            os.fchmod(file.fileno(), 0o644)  # the collector is another user
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


@contextlib.contextmanager
def _exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two runs that end at once must not lose each other's samples."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
