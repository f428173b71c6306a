"""Defines the scenarios: the programs compared in each, and the check after each run."""

import filecmp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.measure import Command
from bench.peers import Commands, Run

OURS_SIZE = "ours, `--verify-level size`"
OURS_CHECKSUM = "ours, `--verify-level checksum` (default)"
OURS_ARCHIVE = "ours, `--layout archive`"
OURS = "ours"
LAYOUT_FULL = "`--layout full` (default)"

MakeCommand = Callable[[Run], Command]
Check = Callable[[Run], None]


class WrongResultError(Exception):
    """A program succeeded but did not do the work that is compared."""


@dataclass(frozen=True)
class Contender:
    """One program in one scenario.

    `once` runs before the first attempt, and all attempts share its data. `before` runs before each
    attempt. Neither is measured. `check` replaces that of the scenario.
    """

    name: str
    command: MakeCommand
    once: Sequence[MakeCommand] = ()
    before: Sequence[MakeCommand] = ()
    check: Check | None = None


@dataclass(frozen=True)
class Scenario:
    """Programs that do the same work. `repeats` multiplies the rounds of a short scenario."""

    key: str
    title: str
    contenders: Sequence[Contender]
    check: Check
    needs_bucket: bool = True
    repeats: int = 1
    compares_memory: bool = True


@dataclass(frozen=True)
class Checks:
    """Checks that a program did its work, so that one that did nothing cannot win."""

    snapshot: Path
    stored_sizes: Callable[[Run], Mapping[str, int]]
    minimum_share: float = 0.9
    """Below 1 because restic compresses: it stores a few percent less than it reads."""

    def stored_in_bucket(self, run: Run) -> None:
        """The bucket holds at least the snapshot's bytes."""
        self._at_least(self._stored_bytes(run), run.bucket)

    def stored_again(self, run: Run) -> None:
        """The bucket holds the bytes of the first backup and of all second ones."""
        self._at_least(self._stored_bytes(run) / (run.attempt + 2), run.bucket)

    def shared_again(self, run: Run, *, mark: str) -> None:
        """The bucket holds the bytes once, and for each backup an object with `mark` in its key."""
        self._at_least(self._stored_bytes(run), run.bucket)
        found = sum(mark in key for key in self.stored_sizes(run))
        if found != run.attempt + 2:
            raise WrongResultError(f"{found} backups in {run.bucket} after run {run.attempt}")

    def stored_in_folder(self, run: Run) -> None:
        """The scratch folder holds the snapshot's bytes."""
        self._at_least(_bytes_below(run.folder), "the local store")

    def restored(self, run: Run) -> None:
        """The target holds every file in full; the bytes are compared in the warm-up."""
        for file in sorted(self.snapshot.rglob("*")):
            if not file.is_file():
                continue
            restored = run.folder / "target" / file.relative_to(self.snapshot)
            same = restored.exists() and restored.stat().st_size == file.stat().st_size
            if not same or (run.attempt == 0 and not filecmp.cmp(file, restored, shallow=False)):
                raise WrongResultError(f"restored file differs: {file.relative_to(self.snapshot)}")

    def nothing(self, _: Run) -> None:
        """No check, for programs without a result."""

    def _stored_bytes(self, run: Run) -> int:
        return sum(self.stored_sizes(run).values())

    def _at_least(self, found: float, where: str) -> None:
        expected = _bytes_below(self.snapshot)
        if found < expected * self.minimum_share:
            raise WrongResultError(f"{found:.0f} bytes in {where}, the snapshot has {expected}")


def scenarios(commands: Commands, checks: Checks, *, peers_only: bool) -> list[Scenario]:
    """Return all scenarios, without our program if `peers_only`."""
    found = [
        _first_backup(commands, checks),
        _layouts(commands, checks),
        _second_backup(commands, checks),
        _restore(commands, checks),
        _local_backup(commands, checks),
        _start(commands, checks),
    ]
    return [_without_ours(one) for one in found] if peers_only else found


def _first_backup(commands: Commands, checks: Checks) -> Scenario:
    return Scenario(
        "first",
        "First backup, to S3",
        [
            Contender(OURS_SIZE, partial(commands.ours_backup, level="size")),
            Contender(OURS_CHECKSUM, partial(commands.ours_backup, level="checksum")),
            Contender("s5cmd cp", commands.s5cmd_upload),
            Contender("rclone copy", commands.rclone_upload),
            Contender("aws s3 cp", commands.aws_upload),
            Contender("restic backup", commands.restic_upload, before=[commands.restic_prepare]),
            Contender("vmbackup", commands.vmbackup_upload),
        ],
        checks.stored_in_bucket,
    )


def _layouts(commands: Commands, checks: Checks) -> Scenario:
    return Scenario(
        "layouts",
        "First backup in both layouts, to S3",
        [
            Contender(OURS_ARCHIVE, commands.ours_archive),
            Contender(LAYOUT_FULL, partial(commands.ours_backup, level="checksum")),
        ],
        checks.stored_in_bucket,
    )


def _second_backup(commands: Commands, checks: Checks) -> Scenario:
    first = partial(commands.ours_backup, level="size")
    checksum = partial(commands.ours_backup, level="checksum")
    return Scenario(
        "second",
        "Unchanged second backup, to S3",
        [
            Contender(OURS_SIZE, first, once=[first]),
            Contender(OURS_CHECKSUM, checksum, once=[first]),
            Contender(
                OURS_ARCHIVE,
                commands.ours_archive,
                once=[commands.ours_archive],
                check=partial(checks.shared_again, mark="/metadata.json"),
            ),
            Contender(
                "vmbackup -origin", commands.vmbackup_second, once=[commands.vmbackup_upload]
            ),
            Contender(
                "restic backup",
                commands.restic_upload,
                once=[commands.restic_prepare, commands.restic_upload],
                check=partial(checks.shared_again, mark="/snapshots/"),
            ),
        ],
        checks.stored_again,
    )


def _restore(commands: Commands, checks: Checks) -> Scenario:
    backup = partial(commands.ours_backup, level="size")
    return Scenario(
        "restore",
        "Restore into an empty directory, from S3",
        [
            Contender(OURS, commands.ours_restore, once=[backup]),
            Contender("s5cmd cp", commands.s5cmd_restore, once=[commands.s5cmd_upload]),
            Contender(
                "s5cmd cp, then sha256sum",
                commands.s5cmd_restore_checked,
                once=[commands.s5cmd_upload],
            ),
            Contender("vmrestore", commands.vmrestore, once=[commands.vmbackup_upload]),
        ],
        checks.restored,
    )


def _local_backup(commands: Commands, checks: Checks) -> Scenario:
    return Scenario(
        "local",
        "First backup, to a local directory",
        [
            Contender(OURS_SIZE, partial(commands.ours_backup_local, level="size")),
            Contender(OURS_CHECKSUM, partial(commands.ours_backup_local, level="checksum")),
            Contender("cp -r", commands.cp_local),
            Contender("rclone copy", commands.rclone_local),
            Contender(
                "restic backup", commands.restic_local, before=[commands.restic_local_prepare]
            ),
        ],
        checks.stored_in_folder,
        needs_bucket=False,
    )


def _start(commands: Commands, checks: Checks) -> Scenario:
    return Scenario(
        "help",
        "Start: `prometheus-backup --help`",
        [Contender(OURS, commands.ours_help), Contender("python -c pass", commands.python_start)],
        checks.nothing,
        needs_bucket=False,
        repeats=3,
        compares_memory=False,
    )


def _without_ours(scenario: Scenario) -> Scenario:
    peers = [one for one in scenario.contenders if not one.name.startswith(OURS)]
    return replace(scenario, contenders=peers)


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
