"""The error classes match the tree in the docstring and the documented exit codes."""

import re
from collections.abc import Iterator

import pytest

from prometheus_backup import errors
from prometheus_backup.errors import BackupToolError, SourceUnavailable
from prometheus_backup.model import Outcome

# The codes in docs/exit-codes.md, on which scripts and alerts depend.
PUBLISHED = {
    "UsageError": 2,
    "RepositoryNotFound": 10,
    "RepositoryLocked": 11,
    "RepositoryDenied": 12,
    "RepositoryUnavailable": 13,
    "NewerFormat": 14,
    "SourceUnavailable": 20,
    "AdminApiDisabled": 21,
    "SnapshotUnusable": 22,
    "BackupNotFound": 30,
    "TargetNotEmpty": 31,
    "TargetWouldLoseData": 32,
    "TargetUnusable": 33,
    "BytesDiffer": 40,
    "UnreadableManifest": 41,
    "Interrupted": 130,
    "Terminated": 143,
}
_ALL_CODES = {1, *PUBLISHED.values()}

_LINE = re.compile(r"^ {4}(?P<rail>[ |]*(?:\+-- )?)(?P<name>[A-Z]\w+)(?: +(?P<code>\d+))?(?: |$)")

type_of_error = type[BackupToolError]


def tree_in_code(root: type_of_error = BackupToolError) -> Iterator[type_of_error]:
    """Yield the classes of the module, root first."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree_in_code(child)


def tree_in_docstring() -> dict[str, tuple[str | None, int | None]]:
    """Return the parent and the exit code, if shown, of each class in the docstring."""
    found: dict[str, tuple[str | None, int | None]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        depth = len(match["rail"]) // 4
        del above[depth:]
        code = int(match["code"]) if match["code"] else None
        found[match["name"]] = (above[-1] if above else None, code)
        above.append(match["name"])
    return found


def test_docstring_shows_every_class_under_its_parent() -> None:
    in_code = {c.__name__: c.__bases__[0].__name__ for c in tree_in_code()}
    in_code["BackupToolError"] = ""
    shown = {name: parent or "" for name, (parent, _) in tree_in_docstring().items()}
    assert shown == in_code


def test_docstring_shows_the_exit_code_of_every_class_that_is_raised() -> None:
    for error in tree_in_code():
        _, code = tree_in_docstring()[error.__name__]
        is_branch = list(tree_in_code(error)) != [error]
        if is_branch and error is not BackupToolError:
            assert code is None, f"{error.__name__} is a branch: its leaves are raised"
        else:
            assert code == error.exit_code, error.__name__


@pytest.mark.parametrize(("name", "code"), PUBLISHED.items())
def test_class_has_its_documented_exit_code(name: str, code: int) -> None:
    error = getattr(errors, name)
    assert issubclass(error, BackupToolError)
    assert error.exit_code == code


def test_every_exit_code_is_documented() -> None:
    assert {error.exit_code for error in tree_in_code()} <= _ALL_CODES


def test_exit_codes_of_outcomes_differ_from_a_crash() -> None:
    codes = {outcome: outcome.exit_code for outcome in Outcome}
    assert codes == {Outcome.DONE: 0, Outcome.PARTIAL: 3, Outcome.FAULTY: 41}


def test_every_error_is_an_exception_under_the_root() -> None:
    assert all(issubclass(error, Exception) for error in tree_in_code())


def test_every_class_has_a_docstring_of_one_sentence() -> None:
    for error in tree_in_code():
        assert (error.__doc__ or "").splitlines()[0].endswith("."), error.__name__


def test_message_is_the_text_of_the_error() -> None:
    error = SourceUnavailable("cannot reach Prometheus: connection refused")
    assert str(error) == error.message == "cannot reach Prometheus: connection refused"


def test_class_gives_the_hint_if_the_raiser_gives_none() -> None:
    assert SourceUnavailable("x").hint == SourceUnavailable.default_hint != ""
    assert SourceUnavailable("x", hint="start it").hint == "start it"
    assert SourceUnavailable("x", hint="").hint == ""
    assert BackupToolError("x").hint == ""
