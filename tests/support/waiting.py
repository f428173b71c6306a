"""Waits for a condition in another thread or process by polling."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], *, deadline: float = 60) -> None:
    """Wait until `condition()` is true; fail after `deadline` seconds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"still false after {deadline:.0f} s"
        time.sleep(0.005)
