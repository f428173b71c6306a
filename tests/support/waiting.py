"""Waiting for what happens in another thread or process, by looking again and again."""

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], bool], *, deadline: float = 60) -> None:
    """Return when it holds; fail at the deadline (seconds)."""
    end = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < end, f"did not come true in {deadline:.0f} s"
        time.sleep(0.005)
