"""Changes a repository in the middle of a command, at each of its requests."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from prometheus_backup.model import PutOptions
from prometheus_backup.stores.base import ObjectStore
from tests.support.store_wrappers import StoreWrapper


class PowerCut(BaseException):
    """The process dies: no code can handle this as an error."""


class DyingStore(StoreWrapper):
    """Makes `after` changes, one deletion at a time, then raises `PowerCut`."""

    def __init__(self, store: ObjectStore, *, after: int) -> None:
        super().__init__(store)
        self._left = after

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        self._count()
        self.inner.put_small(key, body, options=options)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._count()
            self.inner.delete([key])

    def _count(self) -> None:
        if self._left == 0:
            raise PowerCut
        self._left -= 1


class InterruptedStore:
    """Forwards to a store, and does something else before its request of this number."""

    def __init__(self, store: ObjectStore, number: int, action: Callable[[], object]) -> None:
        self._store = store
        self._left = number
        self._action = action
        self._lock = threading.Lock()

    @property
    def reached(self) -> bool:
        """Return whether there were that many requests."""
        return self._left <= 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def request(*arguments: Any, **more: Any) -> Any:
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    self._action()
            return found(*arguments, **more)

        return request


def at_each_request(
    prepare: Callable[[], ObjectStore],
    change: Callable[[ObjectStore], object],
    *,
    changes: Iterable[int],
) -> Iterator[tuple[ObjectStore, InterruptedStore]]:
    """Yield each prepared store, and a view of it in the middle of whose use it is changed.

    `change` is stopped after each of these numbers of its changes, as if it were still at work. The
    caller uses the view once; the last one is changed by nobody, because it has fewer requests.
    """
    for made in changes:
        for number in range(1, 1000):
            store = prepare()

            def act(store: ObjectStore = store, made: int = made) -> None:
                with contextlib.suppress(PowerCut):
                    change(DyingStore(store, after=made))

            view = InterruptedStore(store, number, act)
            yield store, view
            if not view.reached:
                break
