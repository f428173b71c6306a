"""`heal` while Prometheus runs: no restart, and the data is missing for two reloads only."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
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
