"""`heal` while Prometheus runs: no restart, and the data is missing for two reloads only."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from prometheus_backup.heal import run as heal_run
from prometheus_backup.heal.scan import Scan, describe_bad_block, scan
from prometheus_backup.tsdb.block import read_meta
from prometheus_backup.tsdb.faults import Fault, FaultKind
from prometheus_backup.tsdb.verification import check_block
from tests.support.damage import FAILS_QUERIES, PREVENTS_START
from tests.support.damaged_directory import DamagedDirectory, samples
from tests.support.frequent_reloads import FREQUENT_RELOADS, FrequentReloads


def test_prometheus_answers_again_without_a_restart(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec, tmp_path: Path
) -> None:
    queried, copied = damaged.blocks[1], damaged.blocks[2]
    FAILS_QUERIES["chunk bit flip"](queried)
    copied.rename(tmp_path / copied.name)
    server = damaged.start(FREQUENT_RELOADS)
    pid = server.pid
    with pytest.raises(RuntimeError, match="422"):
        samples(server, tsdb_block_spec)
    shutil.copytree(tmp_path / copied.name, copied)
    PREVENTS_START["index truncated"](copied)

    with FrequentReloads(server):
        healed = damaged.heal("--apply", url=server.url)

    assert (healed["running"], healed["outcome"], healed["problems"]) == (True, "done", [])
    assert {bad["block"] for bad in healed["bad"]} == {queried.name, copied.name}
    assert samples(server, tsdb_block_spec) == sound_samples
    assert (server.pid, server.running) == (pid, True)
    assert damaged.present()


def test_without_waiting_the_report_asks_for_a_restart(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    FAILS_QUERIES["chunk bit flip"](damaged.block)
    server = damaged.start()

    healed = damaged.heal("--apply", "--wait=0", url=server.url, code=3)

    assert healed["placed"] == [damaged.block.name]
    assert "restart it" in healed["problems"][0]
    with pytest.raises(RuntimeError, match="422"):
        samples(server, tsdb_block_spec)
    server.restart()
    assert samples(server, tsdb_block_spec) == sound_samples


@pytest.mark.parametrize("options", [(), ("--without-copy",)], ids=["with copies", "without"])
@pytest.mark.parametrize(
    ("kind", "file"), [(FaultKind.SERIES_CORRUPT, "index"), (FaultKind.CHUNK_CORRUPT, "chunks/1")]
)
def test_a_block_that_only_this_program_cannot_read_is_not_touched(
    damaged: DamagedDirectory,
    tsdb_block_spec: BlockSpec,
    monkeypatch: pytest.MonkeyPatch,
    kind: FaultKind,
    file: str,
    options: tuple[str, ...],
) -> None:
    """The format may allow what this program takes for damage, as it did for 128 labels."""

    def misjudging(*arguments: Any, **more: Any) -> Scan:
        found = scan(*arguments, **more)
        report = check_block(damaged.block)
        fault = Fault(kind, file, "cannot be read", series=tsdb_block_spec.metric)
        report = replace(report, faults=(fault,), counts={kind: 1})
        bad = describe_bad_block(report, read_meta(damaged.block))
        sound = tuple(b for b in found.sound if b.ulid != damaged.block.name)
        return Scan(sound, (bad,), {bad.name: report})

    monkeypatch.setattr(heal_run, "scan", misjudging)
    server = damaged.start()
    healed = damaged.heal("--apply", *options, url=server.url)
    (bad,) = healed["bad"]
    assert bad["block"] == damaged.block.name
    assert "Prometheus has loaded it and answers from it" in bad["because"]
    assert damaged.present()
    assert not damaged.quarantine.exists()
