"""Calls that may wait for a store, made so that a signal to stop is handled at once."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

_GRACE = 3.0  # seconds

_T = TypeVar("_T")


def interruptibly(action: Callable[[], _T], *, seconds: float | None = None) -> _T:
    """Run `action` and return its result; raise TimeoutError if it takes more than `seconds`.

    Python handles signals in the main thread only, and not inside a library's native code: so
    another thread makes the call, and the main thread waits for it. After a signal, the call gets a
    few seconds to complete, so that its effect is known; after that it is abandoned, and the
    command line does not wait for its thread.
    """
    if seconds is None and threading.current_thread() is not threading.main_thread():
        return action()
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except BaseException as error:  # noqa: BLE001 -- passed on to the caller
            outcome.set_exception(error)

    try:
        threading.Thread(target=run, name="store").start()  # a signal may arrive right after it
        wait([outcome], timeout=seconds)
    except BaseException:  # a signal
        wait([outcome], timeout=_GRACE)
        raise
    return outcome.result(timeout=0)
