"""Read the JSON of Prometheus' responses. Another server, or a broken one, can send anything."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from prometheus_backup.model import printable

_MAX_TEXT = 4096
"""Characters: the longest path that Linux allows."""
_MAX_NUMBER = 2**63


class UnexpectedValue(ValueError):
    """A value has another type than in Prometheus' responses; the message names it."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; empty if it is not one."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # nested too deeply
        return {}
    return document if isinstance(document, dict) else {}


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a JSON object; `path` names it in messages. Null is as good as absent.

    Texts are returned without control characters: they are printed, and stored in manifests.
    """

    path: str
    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        """Return a text, empty if it is absent. Raises UnexpectedValue."""
        return printable(self.raw_text(name), max_length=_MAX_TEXT)

    def raw_text(self, name: str) -> str:
        """Return a text as it is, with its lines, not to be printed. Raises UnexpectedValue."""
        value = self._value(name, "")
        if not isinstance(value, str):
            raise self._unexpected(name, "a string")
        return value

    def number(self, name: str) -> int | None:
        """Return a whole number, None if it is absent. Raises UnexpectedValue."""
        value = self._value(name, None)
        if value is None:
            return None
        if type(value) is not int or not -_MAX_NUMBER <= value < _MAX_NUMBER:
            raise self._unexpected(name, "a number of 64 bits")
        return value

    def count(self, name: str) -> int:
        """Return a number, 0 if it is absent or negative. Raises UnexpectedValue."""
        return max(self.number(name) or 0, 0)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, empty if it is absent. Raises UnexpectedValue."""
        values = self._value(name, [])
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise self._unexpected(name, "a list of strings")
        return tuple(printable(v) for v in values)

    def object(self, name: str) -> Self:
        """Return an object, empty if it is absent. Raises UnexpectedValue."""
        value = self._value(name, {})
        if not isinstance(value, dict):
            raise self._unexpected(name, "an object")
        return type(self)(f"{self.path} {name}", value)

    def objects(self, name: str) -> tuple[Self, ...]:
        """Return a list of objects, empty if it is absent. Raises UnexpectedValue."""
        values = self._value(name, [])
        if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
            raise self._unexpected(name, "a list of objects")
        return tuple(type(self)(f"{self.path} {name}", v) for v in values)

    def _value(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def _unexpected(self, name: str, kind: str) -> UnexpectedValue:
        return UnexpectedValue(f"{self.path}: {name} is not {kind}")
