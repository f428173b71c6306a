"""Make errors on standard output and standard error harmless.

If the reader of a pipe leaves, a terminal is closed or a disk is full, the rest of the output is
dropped. What a command does, and its exit code, never depend on who reads its output.
"""

import errno
import io
import os
import select
import sys

_STANDARD_FILES = (0, 1, 2)


class LossyFile(io.FileIO):
    """A file that drops what cannot be written. `error` is the first failure of a write."""

    error: OSError | None = None

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        """Write what can be written; return the number of bytes written or dropped."""
        while self.error is None:
            try:
                written: int | None = super().write(data)
            except OSError as error:
                self.error = error
                break
            if written is not None:
                return written
            select.select([], [self], [])  # a full pipe that is non-blocking
        return len(data)


def open_closed_files() -> None:
    """Open /dev/null in place of standard files that are closed (`>&-`).

    Otherwise the next file that is opened, such as one of the repository, would get their number,
    and an error message of a library would be written into it.
    """
    for number in _STANDARD_FILES:
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)


def protect() -> None:
    """Make failures to write to `sys.stdout` and `sys.stderr` harmless."""
    sys.stdout = _lossy(1, sys.stdout, line_buffering=False)
    sys.stderr = _lossy(2, sys.stderr, line_buffering=True)


def finish() -> None:
    """Flush both streams, and report output that was lost for another reason than its reader."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.error if isinstance(raw, LossyFile) else None
    if error is not None and error.errno != errno.EPIPE:
        sys.stderr.write(f"warning: cannot write to standard output: {error.strerror}\n")
    sys.stderr.flush()


def _lossy(number: int, stream: object, *, line_buffering: bool) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(LossyFile(number, "w", closefd=False)),  # type: ignore[type-var]
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",  # a label that the terminal cannot encode is not an error
        line_buffering=line_buffering or bool(getattr(stream, "line_buffering", False)),
        write_through=bool(getattr(stream, "write_through", False)),
    )
