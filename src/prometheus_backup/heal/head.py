"""Read which files the head of a data directory has, and repair them. `head_plan.py` decides."""

import stat
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path, PurePosixPath

from prometheus_backup.folder import Folder, Owner
from prometheus_backup.heal.head_plan import (
    CHUNKS_HEAD,
    HEAD_FOLDERS,
    HEADER_SIZE,
    WAL,
    Action,
    Entries,
    Entry,
    HeadFault,
    HeadFiles,
    HeadStep,
    newest_checkpoint,
    number,
)
from prometheus_backup.heal.swap import Swap


def read_head(data_dir: Path) -> HeadFiles:
    """Read the names of the files of the head. Raises OSError."""
    present = [name for name in HEAD_FOLDERS if (data_dir / name).exists()]
    folders = {n: _entries(data_dir / n) for n in present if (data_dir / n).is_dir()}
    newest = newest_checkpoint(n for n, e in folders.get(WAL, {}).items() if e.is_folder)
    return HeadFiles(
        folders=folders,
        checkpoints={newest: _entries(data_dir / WAL / newest)} if newest else {},
        no_folders=frozenset(present) - folders.keys(),
        links=frozenset(name for name in present if (data_dir / name).is_symlink()),
    )


def _entries(folder: Path) -> Entries:
    return {path.name: _entry(path) for path in folder.iterdir()}


def _entry(path: Path) -> Entry:
    try:
        status = path.stat()
    except FileNotFoundError:  # deleted by now, or a link to nothing
        return Entry(is_file=False)
    header = b""
    if (
        stat.S_ISREG(status.st_mode)
        and path.parent.name == CHUNKS_HEAD
        and number(path.name) is not None
    ):
        with path.open("rb") as file:
            header = file.read(HEADER_SIZE)
    return Entry(
        is_file=stat.S_ISREG(status.st_mode),
        is_folder=stat.S_ISDIR(status.st_mode),
        size=status.st_size,
        header=header,
    )


def repair_head(
    swap: Swap, faults: Iterable[HeadFault], *, owner: Owner | None, now: datetime
) -> dict[str, Path]:
    """Repair the faults; return the quarantine paths of what was moved. Raises OSError."""
    moved: dict[str, Path] = {}
    for fault in faults:
        for step in fault.steps:
            path = PurePosixPath(step.path)
            with swap.data.at(*path.parts[:-1]) as folder:
                if step.action is Action.MOVE_AWAY:
                    note = {"file": step.path, "faults": [fault.detail], "because": fault.remedy}
                    moved[step.path] = swap.move_file_away(folder, path, note=note, now=now)
                else:
                    _change(folder, step, path.name, owner)
                folder.sync()
    return moved


def _change(folder: Folder, step: HeadStep, name: str, owner: Owner | None) -> None:
    if step.action is Action.CREATE:
        folder.create_empty(name, owner)
    elif step.action is Action.CREATE_FOLDER:
        folder.child(name, create=True).close()
        folder.hand_over(name, owner)
    elif not folder.exists(step.new_name):
        folder.move(name, folder, step.new_name)
