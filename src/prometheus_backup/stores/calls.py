"""Calls that may wait for a store, made so that a signal to stop is handled at once."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

_GRACE = 3.0  # seconds

_T = TypeVar("_T")


def interruptibly(action: Callable[[], _T], *, seconds: float | None = None) -> _T:
    """Run `action` and return its result; raise TimeoutError if it takes more than `seconds`.

    Python handles signals in the main thread only, and not inside a library's native code: so the
    main thread has another one make the call, and waits for that one. After a signal a call that
    the store answers is completed, so that what it did is known; else it goes on unheeded, and the
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

    threading.Thread(target=run, name="store").start()
    try:
        wait([outcome], timeout=seconds)
    except BaseException:  # a signal
        wait([outcome], timeout=_GRACE)
        raise
    return outcome.result(timeout=0)
