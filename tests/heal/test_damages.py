"""Every known kind of damage, before and after `heal`, with Prometheus 2.x and 3.x.

Before, the damage has the reported effect; after, Prometheus starts and answers as it did when the
block was sound.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from devtools.processes import ProcessFailedError
from tests.support.contents import tree
from tests.support.damage import FAILS_QUERIES, HIDES_DATA, PREVENTS_START, change_meta
from tests.support.damaged_directory import DamagedDirectory, only_bad, samples


def heal_and_compare(
    damaged: DamagedDirectory, effect: str, spec: BlockSpec, sound_samples: list[Any]
) -> Any:
    """Heal the directory and check that Prometheus serves it as before; the repaired block."""
    found = only_bad(damaged.heal(code=41))
    assert (found["block"], found["effect"]) == (damaged.block.name, effect)
    healed = only_bad(damaged.heal("--apply"))
    assert samples(damaged.start(), spec) == sound_samples
    assert damaged.present()
    return healed


@pytest.mark.parametrize("damage", PREVENTS_START)
def test_prometheus_starts_again_after_a_block_prevented_it(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    PREVENTS_START[damage](damaged.block)
    with pytest.raises(ProcessFailedError, match="opening storage failed"):
        damaged.start()

    healed = heal_and_compare(damaged, "stops-start", tsdb_block_spec, sound_samples)

    assert tree(Path(healed["quarantine"])) != {}


@pytest.mark.parametrize("damage", HIDES_DATA)
def test_samples_that_prometheus_silently_skipped_are_back(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    HIDES_DATA[damage](damaged.block)
    before = damaged.start()
    assert samples(before, tsdb_block_spec) == [*sound_samples[:2], [], [], *sound_samples[4:]]
    before.kill()

    heal_and_compare(damaged, "hides-data", tsdb_block_spec, sound_samples)


@pytest.mark.parametrize("damage", FAILS_QUERIES)
def test_queries_that_failed_succeed_again(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    FAILS_QUERIES[damage](damaged.block)
    before = damaged.start()
    with pytest.raises(RuntimeError, match="422"):
        samples(before, tsdb_block_spec)
    before.kill()

    heal_and_compare(damaged, "fails-queries", tsdb_block_spec, sound_samples)


def test_snapshots_work_again_after_tombstones_were_missing(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    (damaged.block / "tombstones").unlink()
    before = damaged.start()
    assert samples(before, tsdb_block_spec) == sound_samples
    with pytest.raises(RuntimeError, match="create snapshot tombstones"):
        before.snapshot()
    before.kill()

    assert only_bad(damaged.heal(code=41))["effect"] == "breaks-snapshots"
    damaged.heal("--apply")

    after = damaged.start()
    assert samples(after, tsdb_block_spec) == sound_samples
    assert (after.snapshot(skip_head=True) / damaged.block.name).is_dir()


def test_block_under_a_wrong_name_is_renamed(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    wrong = damaged.data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV"
    damaged.block.rename(wrong)
    before = damaged.start()
    assert samples(before, tsdb_block_spec) == sound_samples
    before.kill()

    found = only_bad(damaged.heal(code=41))
    assert (found["block"], found["remedy"]) == (wrong.name, "rename")
    damaged.heal("--apply")

    assert not wrong.exists()
    assert samples(damaged.start(), tsdb_block_spec) == sound_samples
    assert damaged.present()


def test_second_copy_of_a_block_is_moved_away_and_snapshots_work_again(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    second = damaged.data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV"
    shutil.copytree(damaged.block, second)
    before = damaged.start()
    assert samples(before, tsdb_block_spec) == sound_samples
    with pytest.raises(RuntimeError, match="snapshot"):
        before.snapshot(skip_head=True)
    before.kill()

    found = only_bad(damaged.heal(code=41))
    assert (found["block"], found["remedy"]) == (second.name, "drop")
    damaged.heal("--apply")

    after = damaged.start()
    assert samples(after, tsdb_block_spec) == sound_samples
    after.snapshot(skip_head=True)


def test_old_version_of_meta_json_is_upgraded_as_by_prometheus(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    change_meta(damaged.block, version=2)

    found = only_bad(damaged.heal(code=41))
    assert (found["effect"], found["remedy"]) == ("hides-data", "mend")
    damaged.heal("--apply")

    assert samples(damaged.start(), tsdb_block_spec) == sound_samples


def _without_sources(block: Path) -> None:
    change_meta(block, compaction={"level": 1})


def _bad_byte_in_a_string(block: Path) -> None:
    change_meta(block, note="xyz")
    meta = block / "meta.json"
    meta.write_bytes(meta.read_bytes().replace(b"xyz", b"\xff\xfe"))


@pytest.mark.parametrize("damage", [_without_sources, _bad_byte_in_a_string])
def test_unusual_meta_json_that_prometheus_reads_is_not_bad(
    damaged: DamagedDirectory,
    sound_samples: list[Any],
    tsdb_block_spec: BlockSpec,
    damage: Callable[[Path], None],
) -> None:
    damage(damaged.block)
    found = damaged.heal()
    assert [bad["remedy"] for bad in found["bad"]] in ([], ["nothing"])
    assert samples(damaged.start(), tsdb_block_spec) == sound_samples


def test_bad_parent_of_a_sound_block_is_left_to_prometheus(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    bad = damaged.data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV"
    shutil.copytree(damaged.block, bad)
    (bad / "index").unlink()
    parents = [{"ulid": bad.name, "minTime": 0, "maxTime": 1}]
    compaction = {"level": 2, "sources": [damaged.block.name], "parents": parents}
    change_meta(bad, ulid=bad.name)
    change_meta(damaged.block, compaction=compaction)

    assert only_bad(damaged.heal())["remedy"] == "nothing"
    assert bad.exists()

    assert samples(damaged.start(), tsdb_block_spec) == sound_samples
    assert not bad.exists()
