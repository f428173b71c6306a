"""`heal` while Prometheus runs: no restart, and a gap of the time that it takes to look twice."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from tests.support.damages import FAILS_QUERIES, STOPS_A_START
from tests.support.nudges import NUDGEABLE, Nudges
from tests.support.patients import Patient, samples


def test_it_answers_again_without_a_restart(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec, tmp_path: Path
) -> None:
    queried, copied = patient.blocks[1], patient.blocks[2]
    FAILS_QUERIES["chunk bit flip"](queried)
    copied.rename(tmp_path / copied.name)
    server = patient.start(NUDGEABLE)
    pid = server.pid
    with pytest.raises(RuntimeError, match="422"):
        samples(server, tsdb_block_spec)
    shutil.copytree(tmp_path / copied.name, copied)
    STOPS_A_START["index truncated"](copied)

    with Nudges(server):
        healed = patient.heal("--apply", url=server.url)

    assert (healed["running"], healed["outcome"], healed["problems"]) == (True, "done", [])
    assert {bad["block"] for bad in healed["bad"]} == {queried.name, copied.name}
    assert samples(server, tsdb_block_spec) == sound_samples
    assert (server.pid, server.running) == (pid, True)
    assert patient.present()


def test_without_waiting_it_says_that_a_restart_is_needed(
    patient: Patient, sound_samples: list[Any], tsdb_block_spec: BlockSpec
) -> None:
    FAILS_QUERIES["chunk bit flip"](patient.block)
    server = patient.start()

    healed = patient.heal("--apply", "--wait=0", url=server.url, code=3)

    assert healed["placed"] == [patient.block.name]
    assert "restart it" in healed["problems"][0]
    with pytest.raises(RuntimeError, match="422"):
        samples(server, tsdb_block_spec)
    server.restart()
    assert samples(server, tsdb_block_spec) == sound_samples
