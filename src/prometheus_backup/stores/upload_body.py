"""The body of an upload, which remembers an error of its producer."""

from collections.abc import Iterable, Iterator


class UploadBody:
    """Passes chunks on. Client libraries wrap or stringify errors that a body raises."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = iter(body)
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._body)
        except StopIteration:
            raise
        except BaseException as error:
            self._error = error
            raise

    def raise_producer_error(self) -> None:
        """Raise the error of the producer, if there was one."""
        if self._error is not None:
            raise self._error
