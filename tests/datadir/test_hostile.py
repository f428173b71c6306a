"""Another user who may write to a directory plants links there while root works in it."""

import os
import shutil
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from prometheus_backup.events import BlockRestored, Event, FileRestored
from prometheus_backup.folder import Folder, Owner
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import tree
from tests.support.damage import PREVENTS_START
from tests.support.damaged_directory import NOBODY as NO_PROMETHEUS
from tests.support.hostile import NOBODY, planting_links
from tests.support.restore_runs import expected, newest_first, restore
from tests.support.stored_backups import LocalFiles, StoredBackups, run_here

OWN = ".prometheus-backup"
IN_FOLDER = ("restore", "restore.json", "restore.json.new", "lock", "runs", "heal", "quarantine")
IN_BLOCK = ("meta.json", "meta.json.part", "index.part", "tombstones.new", "chunks")
ROUNDS = 3


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory with what only its owner may read and write."""
    folder = tmp_path / "precious"
    (folder / "folder").mkdir(parents=True)
    for path in (folder / "file", folder / "folder" / "file", folder / "index"):
        path.write_text("precious")
        path.chmod(0o600)
    return folder


def state(folder: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """The contents, owner and mode of everything in a directory."""
    return {
        str(p): (p.read_bytes() if p.is_file() else b"", s.st_uid, s.st_mode, s.st_nlink)
        for p in (folder, *folder.rglob("*"))
        for s in [p.stat()]
    }


def attacked(ulids: list[str]) -> list[str]:
    """Everything in a data directory that a restore or a heal may write."""
    ours = [OWN, *(f"{OWN}/{name}" for name in IN_FOLDER)]
    blocks = [f"{OWN}/restore/{ulid}" for ulid in ulids]
    blocks += [f"{OWN}/heal/{part}/{u}" for part in ("staging", "ready") for u in ulids]
    return [*ours, *blocks, *(f"{block}/{name}" for block in blocks for name in IN_BLOCK)]


def run_attacked(
    folder: Path, names: list[str], precious: Path, command: tuple[str, ...], env: dict[str, str]
) -> None:
    """Run a command several times while links are planted: it may fail, but does no harm."""
    before = state(precious)
    with planting_links(folder, names, precious):
        for _ in range(ROUNDS):
            done = run_here(*command, env=env)
            assert "Traceback" not in done.stderr
            assert "bug" not in done.stderr
    assert state(precious) == before


def test_a_restore_as_root_writes_and_gives_away_nothing_through_planted_links(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, precious: Path
) -> None:
    target = tmp_path / "target"
    (target / "wal").mkdir(parents=True)
    ulids = newest_first(repository_files, stored.second)
    command = ("restore", stored.second, str(target), "--merge", f"--chown={NOBODY}")
    env = repository_files.environment()

    run_attacked(target, attacked(ulids), precious, (*command, "--head-from=2100-01-01"), env)

    for entry in set(target.iterdir()) - {target / ulid for ulid in ulids}:
        entry.unlink() if entry.is_symlink() or entry.is_file() else shutil.rmtree(entry)
    done = run_here(*command, env=env)
    assert done.returncode == 0, done.stderr


def test_a_heal_as_root_writes_and_gives_away_nothing_through_planted_links(
    data_dir: Path, repository_files: LocalFiles, precious: Path
) -> None:
    ulids = sorted(p.name for p in data_dir.iterdir())
    PREVENTS_START["index truncated"](data_dir / ulids[0])
    (data_dir / ulids[1] / "tombstones").unlink()
    command = ("heal", str(data_dir), f"--prometheus-url={NO_PROMETHEUS}", "--apply")

    run_attacked(data_dir, attacked(ulids), precious, command, repository_files.environment())


@pytest.mark.parametrize("verb", ["verify", "drill"])
def test_scratch_files_are_not_written_through_planted_links(
    repository_files: LocalFiles,
    stored: StoredBackups,
    prometheus_3: PrometheusBinaries,
    tmp_path: Path,
    precious: Path,
    verb: str,
) -> None:
    scratch, own = tmp_path / "scratch", f"prometheus-backup-{verb}"
    scratch.mkdir()
    inside = ("lock", "data", "run", "run/prometheus.yml", "run/prometheus.log")
    env = {**repository_files.environment(), "PROMETHEUS_BINARY": str(prometheus_3.prometheus)}
    level = ("--level=tsdb",) if verb == "verify" else ()
    command = (verb, stored.second, *level, f"--scratch={scratch}")

    run_attacked(scratch, [own, *(f"{own}/{name}" for name in inside)], precious, command, env)


@pytest.mark.parametrize("kind", [FileRestored, BlockRestored])
@pytest.mark.parametrize("name", [OWN, f"{OWN}/restore"])
def test_a_folder_that_is_replaced_by_a_link_in_the_middle_is_not_followed(
    repository_files: LocalFiles,
    stored: StoredBackups,
    tmp_path: Path,
    precious: Path,
    kind: type[Event],
    name: str,
) -> None:
    """The restore goes on in the folder that it holds open."""
    target, before, replaced = tmp_path / "target", state(precious), list[Path]()

    def replace(event: Event) -> None:
        if isinstance(event, kind) and not replaced:
            replaced.append((target / name).rename(target / "stolen"))
            (target / name).symlink_to(precious)

    restore(LocalStore(repository_files.root), stored.second, target, replace)

    assert replaced
    assert state(precious) == before
    in_place = {p: b for p, b in tree(target).items() if not p.startswith((OWN, "stolen"))}
    assert in_place == expected(repository_files, stored.second)


def test_only_files_of_ours_are_given_away(tmp_path: Path, precious: Path) -> None:
    """A hard link to a file of another user stays with its owner."""
    shared = tmp_path / "shared"
    (shared / "folder").mkdir(parents=True)
    (shared / "folder" / "ours").write_text("ours")
    os.link(precious / "file", shared / "folder" / "planted")
    (shared / "folder" / "link").symlink_to(precious / "folder" / "file")
    before, owner = state(precious), os.geteuid() or NOBODY

    with Folder.hold(shared) as folder:
        folder.give_ours("folder", Owner(owner, os.getegid()))
        with (
            folder.child("other", create=True) as other,
            folder.child("folder") as inside,
            pytest.raises(OSError, match="link"),
        ):
            inside.link("link", other, "copy", owner=None)

    assert state(precious) == before
    assert (shared / "folder" / "ours").stat().st_uid == owner
