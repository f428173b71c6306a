"""A restore that is killed with SIGKILL at any moment, and the same command that resumes it."""

from pathlib import Path

import pytest

from devtools.blocks import BlockSpec
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions
from prometheus_backup.errors import TargetNotEmpty
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import tree
from tests.support.restore_runs import expected, newest_first, placed, restore, restore_and_die
from tests.support.store_wrappers import ReadRecorder
from tests.support.stored_backups import LocalFiles, StoredBackups, run_here


def _staged(target: Path, wanted: dict[str, bytes]) -> set[str]:
    staging = target / ".prometheus-backup" / "restore"
    return {path for path, body in tree(staging).items() if wanted.get(path) == body}


def test_restore_killed_at_any_moment_leaves_complete_newest_blocks_and_can_be_resumed(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    wanted = expected(repository_files, stored.first)
    order = newest_first(repository_files, stored.first)
    in_between = 0
    for events in range(1, 200, 4):
        target = tmp_path / f"target-{events}"
        if not restore_and_die(repository_files.root, stored.first, target, events=events):
            break
        there = placed(target) if target.exists() else set()
        assert there == set(order[: len(there)]), "newest first"
        have = {path for path in wanted if path.partition("/")[0] in there}
        assert all((target / path).read_bytes() == wanted[path] for path in have), "complete"
        have |= _staged(target, wanted)
        in_between += 0 < len(have) < len(wanted)

        store = ReadRecorder(LocalStore(repository_files.root))
        restore(store, stored.first, target)

        again = {key.partition("/")[2] for key in store.read}
        assert again == set(wanted) - have, "only what was missing is read again"
        assert len(store.read) == len(again)
        assert tree(target) == wanted
        assert not (target / ".prometheus-backup").exists()
    else:
        pytest.fail("no restore was completed")
    assert in_between >= 4, "the kills did not hit the middle"


def test_prometheus_starts_on_any_interrupted_restore_which_can_then_be_resumed(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    repository_files: LocalFiles,
    stored: StoredBackups,
    tsdb_block_spec: BlockSpec,
    tmp_path: Path,
) -> None:
    target = tmp_path / "target"
    wanted = expected(repository_files, stored.second)
    command = ("restore", stored.second, str(target))
    env = repository_files.environment()
    seen: list[int] = []
    # Each run resumes the one before and is killed a little later.
    while restore_and_die(repository_files.root, stored.second, target, events=4 + 3 * len(seen)):
        there = placed(target)
        server = start_prometheus(prometheus_binaries, target, PrometheusOptions())
        server.wait_until_scraped(1)
        blocks = {name for name in there if is_ulid(name)}
        assert server.loaded_blocks() == len(blocks), "every restored block is complete"
        assert all((target / path).read_bytes() == wanted[path] for path in _of(blocks, wanted))
        server.stop()
        seen.append(len(blocks))
    assert len(set(seen)) >= 2, "the kills did not hit the middle"

    again = run_here(*command, env=env)

    assert again.returncode == 31, "once completed, the target is like any other with data"
    assert run_here(*command, "--merge", env=env).returncode == 0
    server = start_prometheus(prometheus_binaries, target, PrometheusOptions())
    assert server.loaded_blocks() == tsdb_block_spec.blocks
    assert {path: (target / path).read_bytes() for path in wanted} == wanted


def _of(blocks: set[str], files: dict[str, bytes]) -> list[str]:
    return [path for path in files if path.partition("/")[0] in blocks]


def test_a_damaged_staged_file_is_downloaded_again(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    assert restore_and_die(repository_files.root, stored.first, target, events=12)
    wanted = expected(repository_files, stored.first)
    victim = min(_staged(target, wanted))
    path = target / ".prometheus-backup" / "restore" / victim
    path.write_bytes(bytes(len(wanted[victim])))

    store = ReadRecorder(LocalStore(repository_files.root))
    restore(store, stored.first, target)

    assert any(key.endswith(victim) for key in store.read)
    assert tree(target) == wanted


@pytest.mark.parametrize("mark", ["of another backup", "damaged", "no mapping"])
def test_the_interrupted_restore_of_another_backup_is_exit_31(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, mark: str
) -> None:
    target = tmp_path / "target"
    assert restore_and_die(repository_files.root, stored.first, target, events=20)
    marker = target / ".prometheus-backup" / "restore.json"
    if mark != "of another backup":
        marker.write_text("" if mark == "damaged" else "[]")
    before = tree(target)

    with pytest.raises(TargetNotEmpty, match="was interrupted there") as raised:
        restore(LocalStore(repository_files.root), stored.second, target)

    if mark == "of another backup":
        assert stored.first in str(raised.value)
    assert tree(target) == before
