"""Every damage that Prometheus is known to suffer from, before and after `heal`, on 2.x and 3.x.

Before, the damage does what it is said to do; after, Prometheus starts and answers as it did when
the block was sound.
"""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import ProcessFailedError
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from tests.support.damages import FAILS_QUERIES, HIDES_DATA, STOPS_A_START, change_meta
from tests.support.stored import LocalFiles, json_of, run_here, tree

QUIET = PrometheusOptions(scrape_interval=None)


class Patient:
    """A data directory with four blocks that a repository has backups of; the second is damaged."""

    def __init__(
        self, fleet: PrometheusFleet, binaries: PrometheusBinaries, data_dir: Path, repository: Path
    ) -> None:
        self.fleet = fleet
        self.binaries = binaries
        self.data_dir = data_dir
        self.env = {"REPOSITORY": f"file://{repository}"}
        self.sound = tree(data_dir)
        self.blocks = sorted(path for path in data_dir.iterdir())

    @property
    def block(self) -> Path:
        """The block that is damaged."""
        return self.blocks[1]

    def start(self) -> PrometheusServer:
        """Start a Prometheus on it; raises ProcessFailedError if it does not start."""
        return self.fleet(self.binaries, self.data_dir, QUIET)

    def heal(self, *options: str, code: int = 0) -> Any:
        """Run `heal` while no Prometheus runs; its document."""
        url = "--prometheus-url=http://127.0.0.1:9"
        command = ("heal", str(self.data_dir), url, "--processes=1", "--json", *options)
        return json_of(run_here(*command, env=self.env), code=code)

    def start_healed(self) -> PrometheusServer:
        """Start it again and require that every block is, byte for byte, what it was."""
        server = self.start()
        found = {p: b for p, b in tree(self.data_dir).items() if p.split("/")[0] in self.names}
        assert found == self.sound
        return server

    @property
    def names(self) -> set[str]:
        return {block.name for block in self.blocks}


@pytest.fixture
def patient(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    data_dir: Path,
    repository_files: LocalFiles,
) -> Patient:
    return Patient(start_prometheus, prometheus_binaries, data_dir, repository_files.root)


def samples(server: PrometheusServer, spec: BlockSpec) -> list[Any]:
    """The count and the sum of the samples of each series in each block."""
    length = int((spec.max_time - spec.min_time) / spec.blocks / timedelta(seconds=1))
    step = timedelta(seconds=length)
    last = timedelta(milliseconds=1)
    return [
        server.query(f"{function}({spec.metric}[{length - 1}s])", spec.min_time + n * step - last)
        for n in range(1, spec.blocks + 1)
        for function in ("count_over_time", "sum_over_time")
    ]


@pytest.fixture(scope="module")
def wanted(
    tmp_path_factory: pytest.TempPathFactory,
    prometheus_3: PrometheusBinaries,
    tsdb_blocks: Path,
    tsdb_block_spec: BlockSpec,
) -> list[Any]:
    """What a Prometheus answers on the sound blocks."""
    data = tmp_path_factory.mktemp("sound") / "data"
    shutil.copytree(tsdb_blocks, data)
    with PrometheusServer(prometheus_3, data, QUIET) as server:
        answers = samples(server, tsdb_block_spec)
        server.kill()
    assert all(answers), "each block has samples"
    return answers


def _only_bad(document: Any) -> Any:
    (bad,) = document["bad"]
    return bad


@pytest.mark.parametrize("damage", STOPS_A_START)
def test_prometheus_that_a_block_stops_starts_again(
    patient: Patient, wanted: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    STOPS_A_START[damage](patient.block)
    with pytest.raises(ProcessFailedError, match="opening storage failed"):
        patient.start()

    found = _only_bad(patient.heal(code=41))
    assert (found["block"], found["effect"]) == (patient.block.name, "stops-start")
    healed = _only_bad(patient.heal("--apply"))

    assert tree(Path(healed["quarantine"])) != {}
    assert samples(patient.start_healed(), tsdb_block_spec) == wanted


@pytest.mark.parametrize("damage", HIDES_DATA)
def test_samples_that_prometheus_silently_misses_are_there_again(
    patient: Patient, wanted: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    HIDES_DATA[damage](patient.block)
    before = patient.start()
    assert samples(before, tsdb_block_spec) == [*wanted[:2], [], [], *wanted[4:]]
    before.kill()

    found = _only_bad(patient.heal(code=41))
    assert (found["block"], found["effect"]) == (patient.block.name, "hides-data")
    patient.heal("--apply")

    assert samples(patient.start_healed(), tsdb_block_spec) == wanted


@pytest.mark.parametrize("damage", FAILS_QUERIES)
def test_queries_that_failed_are_answered_again(
    patient: Patient, wanted: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    FAILS_QUERIES[damage](patient.block)
    before = patient.start()
    with pytest.raises(RuntimeError, match="422"):
        samples(before, tsdb_block_spec)
    before.kill()

    found = _only_bad(patient.heal(code=41))
    assert (found["block"], found["effect"]) == (patient.block.name, "fails-queries")
    patient.heal("--apply")

    assert samples(patient.start_healed(), tsdb_block_spec) == wanted


def test_snapshots_work_again_where_tombstones_were_missing(
    patient: Patient, wanted: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    (patient.block / "tombstones").unlink()
    before = patient.start()
    assert samples(before, tsdb_block_spec) == wanted
    with pytest.raises(RuntimeError, match="create snapshot tombstones"):
        before.snapshot()
    before.kill()

    assert _only_bad(patient.heal(code=41))["effect"] == "breaks-snapshots"
    patient.heal("--apply")

    after = patient.start_healed()
    assert samples(after, tsdb_block_spec) == wanted
    assert (after.snapshot(skip_head=True) / patient.block.name).is_dir()


def test_block_under_a_wrong_name_gets_its_own(
    patient: Patient, wanted: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    wrong = patient.data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV"
    patient.block.rename(wrong)
    before = patient.start()
    assert samples(before, tsdb_block_spec) == wanted
    before.kill()

    found = _only_bad(patient.heal(code=41))
    assert (found["block"], found["remedy"]) == (wrong.name, "rename")
    patient.heal("--apply")

    assert not wrong.exists()
    assert samples(patient.start_healed(), tsdb_block_spec) == wanted


def test_second_copy_of_a_block_is_moved_away_and_snapshots_work_again(
    patient: Patient, wanted: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    second = patient.data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV"
    shutil.copytree(patient.block, second)
    before = patient.start()
    assert samples(before, tsdb_block_spec) == wanted
    with pytest.raises(RuntimeError, match="snapshot"):
        before.snapshot(skip_head=True)
    before.kill()

    found = _only_bad(patient.heal(code=41))
    assert (found["block"], found["remedy"]) == (second.name, "drop")
    patient.heal("--apply")

    after = patient.start_healed()
    assert samples(after, tsdb_block_spec) == wanted
    after.snapshot(skip_head=True)


def test_old_version_of_meta_json_is_put_right_as_prometheus_would(
    patient: Patient, wanted: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    change_meta(patient.block, version=2)

    found = _only_bad(patient.heal(code=41))
    assert (found["effect"], found["remedy"]) == ("hides-data", "mend")
    patient.heal("--apply")

    assert samples(patient.start(), tsdb_block_spec) == wanted


def test_bad_block_whose_sound_child_is_there_is_left_to_prometheus(
    patient: Patient, wanted: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    bad = patient.data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV"
    shutil.copytree(patient.block, bad)
    (bad / "index").unlink()
    parents = [{"ulid": bad.name, "minTime": 0, "maxTime": 1}]
    compaction = {"level": 2, "sources": [patient.block.name], "parents": parents}
    change_meta(bad, ulid=bad.name)
    change_meta(patient.block, compaction=compaction)

    assert _only_bad(patient.heal())["remedy"] == "nothing"
    assert bad.exists()

    assert samples(patient.start(), tsdb_block_spec) == wanted
    assert not bad.exists()
