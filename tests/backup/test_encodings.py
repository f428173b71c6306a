"""The manifest says which chunk encodings each block has."""

import json
import shutil
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from prometheus_backup.events import LongStepBegan
from prometheus_backup.model import CONTROL, Level
from prometheus_backup.repository.manifest import Manifest, decode_manifest, encode
from tests.support.memory_store import MemoryStore
from tests.support.newer_blocks import EVIDENT, MIXED, XOR2
from tests.support.runs import Recorder, options, take_backup

COUNTED = {
    XOR2: {"xor2": 23},
    MIXED: {
        "xor": 11,
        "histogram": 14,
        "float-histogram": 14,
        "xor2": 4,
        "histogram-st": 9,
        "float-histogram-st": 9,
    },
}
"""As Prometheus' own library counts them."""
TSDB = options(verify=Level.TSDB, skip_head=True)


@pytest.fixture
def newer_blocks(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, data_dir: Path
) -> PrometheusServer:
    """A 3.5 with four old blocks and three of newer versions, which it loads but cannot query."""
    for block in (XOR2, MIXED, EVIDENT):
        shutil.copytree(block, data_dir / block.name)
    feature = "promql-delayed-name-removal,native-histograms"
    chosen = PrometheusOptions(scrape_interval=None, extra_flags=(f"--enable-feature={feature}",))
    return start_prometheus(prometheus_3, data_dir, chosen)


def encodings(manifest: Manifest, block: Path) -> dict[str, int | None] | None:
    return next(b.encodings for b in manifest.blocks if b.ulid == block.name)


def read_whole(recorder: Recorder) -> int:
    (step,) = [e for e in recorder.of(LongStepBegan) if e.name == "inspect"]
    return step.total


def test_encodings_are_counted_at_level_tsdb_and_kept_at_other_levels(
    newer_blocks: PrometheusServer,
) -> None:
    store, again = MemoryStore(), Recorder()

    first = take_backup(newer_blocks, store, TSDB).manifest
    for block, counted in COUNTED.items():
        assert encodings(first, block) == counted
    stored = json.loads(store.get(f"{first.backup_id}/metadata.json", limit=1 << 20))
    assert stored["blocks"][-1]["encodings"]["xor2"] > 0
    assert first.prometheus.features == ("native-histograms", "promql-delayed-name-removal")
    assert first.prometheus.evaluation_interval == "1m"

    later = take_backup(newer_blocks, store, options(skip_head=True)).manifest
    for block, counted in COUNTED.items():
        assert encodings(later, block) == counted
    take_backup(newer_blocks, store, TSDB, listener=again)
    assert read_whole(again) == 0


def test_at_other_levels_encodings_follow_from_the_source_and_may_be_wrong_until_counted(
    newer_blocks: PrometheusServer,
) -> None:
    store, again = MemoryStore(), Recorder()

    manifest = take_backup(newer_blocks, store, options(skip_head=True)).manifest
    assert encodings(manifest, XOR2) == {"xor": None, "histogram": None, "float-histogram": None}
    assert "xor2" in (encodings(manifest, EVIDENT) or {}), "its counts in meta.json prove it"

    manifest = take_backup(newer_blocks, store, TSDB, listener=again).manifest
    assert read_whole(again) == manifest.totals.bytes
    assert encodings(manifest, XOR2) == COUNTED[XOR2]


def test_a_block_that_may_have_newer_chunks_is_read_again_and_others_are_not(
    newer_blocks: PrometheusServer,
) -> None:
    store, again = MemoryStore(), Recorder()
    manifest = take_backup(newer_blocks, store, TSDB).manifest
    # As made by version 1.0, which found the blocks sound and did not count.
    key = f"{manifest.backup_id}/metadata.json"
    old = manifest.model_copy(
        update={"blocks": tuple(b.model_copy(update={"encodings": None}) for b in manifest.blocks)}
    )
    store.delete([key])
    store.put_small(key, encode(old), options=CONTROL)

    manifest = take_backup(newer_blocks, store, TSDB, listener=again).manifest
    (evident,) = [b for b in manifest.blocks if b.ulid == EVIDENT.name]
    assert read_whole(again) == evident.size
    assert evident.encodings is not None
    assert evident.encodings["xor2"]


def test_manifests_without_encodings_and_features_are_valid_and_unchanged(
    source: PrometheusServer,
) -> None:
    store = MemoryStore()
    manifest = take_backup(source, store).manifest
    document = json.loads(encode(manifest))
    for block in document["blocks"]:
        del block["encodings"]
    for name in ("features", "evaluation_interval"):
        del document["prometheus"][name]
    old = decode_manifest(json.dumps(document).encode(), backup_id=manifest.backup_id)
    assert old.prometheus.features is None
    assert json.loads(encode(old)) == document
