"""What is compared with what: the contenders of each scenario and what must hold after a run."""

import filecmp
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.measure import Command
from bench.peers import Calls, Place

OURS_SIZE = "ours, `--verify-level size`"
OURS_CHECKSUM = "ours, `--verify-level checksum` (default)"
OURS = "ours"

Prepare = Callable[[Place], Command]
Check = Callable[[Place], None]


class WrongResultError(Exception):
    """A program ended well but did not do the work that is compared."""


@dataclass(frozen=True)
class Contender:
    """One program in one scenario.

    `once` runs before the first attempt and its data stay for all; `before` runs before each.
    Neither is measured.
    """

    name: str
    command: Prepare
    once: Sequence[Prepare] = ()
    before: Sequence[Prepare] = ()

    @property
    def is_ours(self) -> bool:
        """Whether it is what the others are compared with."""
        return self.name.startswith(OURS)


@dataclass(frozen=True)
class Scenario:
    """Programs that do the same work. `repeats` multiplies the rounds of a short one."""

    key: str
    title: str
    contenders: Sequence[Contender]
    check: Check
    needs_bucket: bool = True
    repeats: int = 1
    compares_memory: bool = True


@dataclass(frozen=True)
class Checks:
    """Guards against comparing with a program that did nothing."""

    snapshot: Path
    stored_bytes: Callable[[Place], int]
    smallest: float = 0.9
    """Restic compresses: it stores a few percent less than it read."""

    def stored_in_bucket(self, place: Place) -> None:
        """The bucket holds the snapshot's bytes once for each run that wrote into it."""
        self._at_least(self.stored_bytes(place), place.bucket)

    def stored_again(self, place: Place) -> None:
        """The bucket holds the bytes of the first backup and of all second ones."""
        self._at_least(self.stored_bytes(place) / (place.attempt + 2), place.bucket)

    def stored_in_folder(self, place: Place) -> None:
        """The scratch folder holds the snapshot's bytes."""
        self._at_least(_bytes_below(place.folder), "the local store")

    def restored(self, place: Place) -> None:
        """The target holds every file in full; the bytes are compared in the warm-up."""
        for file in sorted(self.snapshot.rglob("*")):
            if not file.is_file():
                continue
            restored = place.folder / "target" / file.relative_to(self.snapshot)
            same = restored.exists() and restored.stat().st_size == file.stat().st_size
            if not same or (place.attempt == 0 and not filecmp.cmp(file, restored, shallow=False)):
                raise WrongResultError(f"restored file differs: {file.relative_to(self.snapshot)}")

    def nothing(self, _: Place) -> None:
        """For programs without a result."""

    def _at_least(self, found: float, where: str) -> None:
        expected = _bytes_below(self.snapshot)
        if found < expected * self.smallest:
            raise WrongResultError(f"{found:.0f} bytes in {where}, the snapshot has {expected}")


def scenarios(calls: Calls, checks: Checks, *, peers_only: bool) -> list[Scenario]:
    """All scenarios; without ours if `peers_only`, and then without those that need it."""
    everything = [
        _first_backup(calls, checks),
        _second_backup(calls, checks),
        _restore(calls, checks),
        _local_backup(calls, checks),
        _start(calls, checks),
    ]
    return [_without_ours(scenario) for scenario in everything] if peers_only else everything


def _first_backup(calls: Calls, checks: Checks) -> Scenario:
    return Scenario(
        "first",
        "First backup, to S3",
        [
            Contender(OURS_SIZE, partial(calls.ours_backup, level="size")),
            Contender(OURS_CHECKSUM, partial(calls.ours_backup, level="checksum")),
            Contender("s5cmd cp", calls.s5cmd_upload),
            Contender("rclone copy", calls.rclone_upload),
            Contender("aws s3 cp", calls.aws_upload),
            Contender("restic backup", calls.restic_upload, before=[calls.restic_prepare]),
            Contender("vmbackup", calls.vmbackup_upload),
        ],
        checks.stored_in_bucket,
    )


def _second_backup(calls: Calls, checks: Checks) -> Scenario:
    first = partial(calls.ours_backup, level="size")
    checksum = partial(calls.ours_backup, level="checksum")
    return Scenario(
        "second",
        "Unchanged second backup, to S3",
        [
            Contender(OURS_SIZE, first, once=[first]),
            Contender(OURS_CHECKSUM, checksum, once=[first]),
            Contender("vmbackup -origin", calls.vmbackup_second, once=[calls.vmbackup_upload]),
        ],
        checks.stored_again,
    )


def _restore(calls: Calls, checks: Checks) -> Scenario:
    backup = partial(calls.ours_backup, level="size")
    return Scenario(
        "restore",
        "Restore into an empty directory, from S3",
        [
            Contender(OURS, calls.ours_restore, once=[backup]),
            Contender("s5cmd cp", calls.s5cmd_restore, once=[calls.s5cmd_upload]),
            Contender(
                "s5cmd cp, then sha256sum", calls.s5cmd_restore_checked, once=[calls.s5cmd_upload]
            ),
            Contender("vmrestore", calls.vmrestore, once=[calls.vmbackup_upload]),
        ],
        checks.restored,
    )


def _local_backup(calls: Calls, checks: Checks) -> Scenario:
    return Scenario(
        "local",
        "First backup, to a local directory",
        [
            Contender(OURS_SIZE, partial(calls.ours_backup_local, level="size")),
            Contender(OURS_CHECKSUM, partial(calls.ours_backup_local, level="checksum")),
            Contender("cp -r", calls.cp_local),
            Contender("rclone copy", calls.rclone_local),
            Contender("restic backup", calls.restic_local, before=[calls.restic_local_prepare]),
        ],
        checks.stored_in_folder,
        needs_bucket=False,
    )


def _start(calls: Calls, checks: Checks) -> Scenario:
    return Scenario(
        "help",
        "Start: `prometheus-backup --help`",
        [Contender(OURS, calls.ours_help), Contender("python -c pass", calls.python_start)],
        checks.nothing,
        needs_bucket=False,
        repeats=3,
        compares_memory=False,
    )


def _without_ours(scenario: Scenario) -> Scenario:
    theirs = [contender for contender in scenario.contenders if not contender.is_ours]
    return replace(scenario, contenders=theirs)


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
