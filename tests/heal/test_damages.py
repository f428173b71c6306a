"""Every damage that Prometheus is known to suffer from, before and after `heal`, on 2.x and 3.x.

Before, the damage does what it is said to do; after, Prometheus starts and answers as it did when
the block was sound.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from devtools.processes import ProcessFailedError
from tests.support.damages import FAILS_QUERIES, HIDES_DATA, STOPS_A_START, change_meta
from tests.support.patients import Patient, only_bad, samples
from tests.support.stored import tree


@pytest.mark.parametrize("damage", STOPS_A_START)
def test_prometheus_that_a_block_stops_starts_again(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    STOPS_A_START[damage](patient.block)
    with pytest.raises(ProcessFailedError, match="opening storage failed"):
        patient.start()

    found = only_bad(patient.heal(code=41))
    assert (found["block"], found["effect"]) == (patient.block.name, "stops-start")
    healed = only_bad(patient.heal("--apply"))

    assert tree(Path(healed["quarantine"])) != {}
    assert samples(patient.start(), tsdb_block_spec) == sound_samples
    assert patient.present()


@pytest.mark.parametrize("damage", HIDES_DATA)
def test_samples_that_prometheus_silently_misses_are_there_again(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    HIDES_DATA[damage](patient.block)
    before = patient.start()
    assert samples(before, tsdb_block_spec) == [*sound_samples[:2], [], [], *sound_samples[4:]]
    before.kill()

    found = only_bad(patient.heal(code=41))
    assert (found["block"], found["effect"]) == (patient.block.name, "hides-data")
    patient.heal("--apply")

    assert samples(patient.start(), tsdb_block_spec) == sound_samples
    assert patient.present()


@pytest.mark.parametrize("damage", FAILS_QUERIES)
def test_queries_that_failed_are_answered_again(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    FAILS_QUERIES[damage](patient.block)
    before = patient.start()
    with pytest.raises(RuntimeError, match="422"):
        samples(before, tsdb_block_spec)
    before.kill()

    found = only_bad(patient.heal(code=41))
    assert (found["block"], found["effect"]) == (patient.block.name, "fails-queries")
    patient.heal("--apply")

    assert samples(patient.start(), tsdb_block_spec) == sound_samples
    assert patient.present()


def test_snapshots_work_again_where_tombstones_were_missing(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    (patient.block / "tombstones").unlink()
    before = patient.start()
    assert samples(before, tsdb_block_spec) == sound_samples
    with pytest.raises(RuntimeError, match="create snapshot tombstones"):
        before.snapshot()
    before.kill()

    assert only_bad(patient.heal(code=41))["effect"] == "breaks-snapshots"
    patient.heal("--apply")

    after = patient.start()
    assert samples(after, tsdb_block_spec) == sound_samples
    assert (after.snapshot(skip_head=True) / patient.block.name).is_dir()


def test_block_under_a_wrong_name_gets_its_own(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    wrong = patient.data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV"
    patient.block.rename(wrong)
    before = patient.start()
    assert samples(before, tsdb_block_spec) == sound_samples
    before.kill()

    found = only_bad(patient.heal(code=41))
    assert (found["block"], found["remedy"]) == (wrong.name, "rename")
    patient.heal("--apply")

    assert not wrong.exists()
    assert samples(patient.start(), tsdb_block_spec) == sound_samples
    assert patient.present()


def test_second_copy_of_a_block_is_moved_away_and_snapshots_work_again(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    second = patient.data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV"
    shutil.copytree(patient.block, second)
    before = patient.start()
    assert samples(before, tsdb_block_spec) == sound_samples
    with pytest.raises(RuntimeError, match="snapshot"):
        before.snapshot(skip_head=True)
    before.kill()

    found = only_bad(patient.heal(code=41))
    assert (found["block"], found["remedy"]) == (second.name, "drop")
    patient.heal("--apply")

    after = patient.start()
    assert samples(after, tsdb_block_spec) == sound_samples
    after.snapshot(skip_head=True)


def test_old_version_of_meta_json_is_put_right_as_prometheus_would(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    change_meta(patient.block, version=2)

    found = only_bad(patient.heal(code=41))
    assert (found["effect"], found["remedy"]) == ("hides-data", "mend")
    patient.heal("--apply")

    assert samples(patient.start(), tsdb_block_spec) == sound_samples


def test_bad_block_whose_sound_child_is_there_is_left_to_prometheus(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    bad = patient.data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV"
    shutil.copytree(patient.block, bad)
    (bad / "index").unlink()
    parents = [{"ulid": bad.name, "minTime": 0, "maxTime": 1}]
    compaction = {"level": 2, "sources": [patient.block.name], "parents": parents}
    change_meta(bad, ulid=bad.name)
    change_meta(patient.block, compaction=compaction)

    assert only_bad(patient.heal())["remedy"] == "nothing"
    assert bad.exists()

    assert samples(patient.start(), tsdb_block_spec) == sound_samples
    assert not bad.exists()
