"""A body on its way into a store that keeps what its producer raised."""

from collections.abc import Iterable, Iterator


class Relay:
    """Passes chunks on. A store would take the producer's failure for its own, or for text."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = iter(body)
        self._failure: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._body)
        except StopIteration:
            raise
        except BaseException as error:
            self._failure = error
            raise

    def raise_own_failure(self) -> None:
        """Raise what the producer raised, if it did."""
        if self._failure is not None:
            raise self._failure
