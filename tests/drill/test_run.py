"""Drills of real backups with a real Prometheus: what passes, and each loss that must be found."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from devtools.fetch_prometheus import PrometheusBinaries
from tests.support.drills import (
    ALL_COUNT,
    EMPTY_TOMBSTONES,
    HEAD_COUNT,
    HEAD_SUM,
    QUERIES,
    Drillable,
    Drilling,
    make_drillable,
)
from tests.support.stored_backups import LocalFiles, json_of, manifest_of, run_here


@pytest.fixture(scope="session")
def other_replica(
    tmp_path_factory: pytest.TempPathFactory,
    prometheus_3: PrometheusBinaries,
    tsdb_blocks: Path,
) -> Drillable:
    """A backup of a Prometheus that scraped the same targets at other times."""
    directory = tmp_path_factory.mktemp("replica")
    return make_drillable(directory, prometheus_3, tsdb_blocks, seed=1)


def test_sound_backup_passes_and_the_time_of_each_step_is_reported(drilling: Drilling) -> None:
    value = drilling.result()

    assert (value["outcome"], value["verdict"], value["cause"]) == ("done", "pass", "")
    assert value["blocks"] == 5
    assert value["prometheus_version"].startswith(drilling.binaries.version)
    assert [(f["query"], f["verdict"]) for f in value["fingerprints"]] == [
        (query, "pass") for query in QUERIES
    ]
    assert [f["series"] for f in value["fingerprints"]] == [1, 20, 19], "one was deleted"
    assert {*value["seconds"]} == {"restore", "start", "ask"}
    assert value["bytes_read"] == manifest_of(drilling.files, drilling.backup)["totals"]["bytes"]
    recorded = drilling.recorded()
    assert (recorded["level"], recorded["verdict"]) == ("drill", "pass")
    assert recorded["seconds"] == value["seconds"]
    listed = json_of(run_here("list", "--json", env=drilling.files.environment()))
    assert listed["backups"][0]["verified"]["level"] == "drill"


def test_text_report_has_result_time_and_every_query(drilling_3: Drilling) -> None:
    done = drilling_3.run()

    assert done.returncode == 0, done.stderr
    assert "result      pass\n" in done.stdout
    assert "ready for queries after" in done.stdout
    for query in QUERIES:
        assert query in done.stdout


def test_queries_with_experimental_functions_are_supported(drilling_3: Drilling) -> None:
    def experimental(document: dict[str, Any]) -> None:
        document["fingerprints"][0]["query"] = "sum(sort_by_label(devtools_head, 'series'))"

    drilling_3.change_manifest(experimental)
    assert drilling_3.result()["verdict"] == "pass"


def test_a_drill_writes_the_metrics_of_any_run(drilling_3: Drilling, tmp_path: Path) -> None:
    textfile = tmp_path / "drill.prom"
    drilling_3.result(METRICS_TEXTFILE=str(textfile))

    lines = textfile.read_text().splitlines()
    metrics = {line.partition("{")[0]: line for line in lines if 'command="drill"' in line}
    assert metrics["prometheus_backup_last_run_exit_code"].endswith(" 0.0")
    assert float(metrics["prometheus_backup_last_run_restored_bytes"].split()[-1]) > 0
    passed = "prometheus_backup_last_verification_success_timestamp_seconds"
    assert any(line.startswith(passed) and 'level="drill"' in line for line in lines)


def test_show_reports_the_recovery_time_and_the_drilled_part(drilling_3: Drilling) -> None:
    def shown() -> str:
        return run_here("show", drilling_3.backup, env=drilling_3.files.environment()).stdout

    assert "fingerprints             3 answered, with 40 series\n" in shown()
    assert "time to recover" not in shown()

    def without_all(document: dict[str, Any]) -> None:
        kept = [f for f in document["fingerprints"] if f["query"] != ALL_COUNT]
        document["fingerprints"] = kept

    drilling_3.change_manifest(without_all)
    drilling_3.result("--from=2025-02-01")
    assert " s (drill of " in shown()
    assert ", of 2025-02-01T00:00:00Z to the end)" in shown()
    assert "drill of 2025-02-01T00:00:00Z to the end  pass" in shown()


def test_missing_object_is_found_before_anything_is_downloaded(
    drilling_3: Drilling,
) -> None:
    key = f"{drilling_3.backup}/{drilling_3.ulids()[1]}/index"
    drilling_3.files.delete(key)

    value = drilling_3.result(code=41)

    assert [(f["kind"], f["key"]) for f in value["findings"]] == [("missing", key)]
    assert value["bytes_read"] == 0
    assert drilling_3.recorded()["verdict"] == "fail"


def test_altered_bytes_are_found(drilling_3: Drilling) -> None:
    key = f"{drilling_3.backup}/{drilling_3.ulids()[1]}/chunks/000001"
    body = bytearray(drilling_3.files.get(key))
    body[len(body) // 2] ^= 1
    drilling_3.files.put(key, bytes(body))

    value = drilling_3.result(code=41)

    assert [(f["kind"], f["key"]) for f in value["findings"]] == [("altered", key)]


def test_block_missing_from_the_manifest_is_found_by_its_samples(drilling: Drilling) -> None:
    gone = drilling.ulids()[1]

    def without(document: dict[str, Any]) -> None:
        document["blocks"] = [b for b in document["blocks"] if b["ulid"] != gone]

    drilling.change_manifest(without)
    value = drilling.result(code=41)

    assert [f["kind"] for f in value["findings"]] == ["other-answer"]
    (detail,) = [f["detail"] for f in value["fingerprints"] if f["query"] == ALL_COUNT]
    assert 'series="0"} is 360, the source had 480' in detail
    assert "and 14 more" in detail


def test_block_replaced_by_an_older_one_is_found(
    drilling: Drilling, tsdb_block_spec: BlockSpec
) -> None:
    """The newest block has the contents of the one before it."""
    *_, before, newest, _head = drilling.ulids()
    meta = json.loads(drilling.files.get(f"{drilling.backup}/{newest}/meta.json"))
    older = json.loads(drilling.files.get(f"{drilling.backup}/{before}/meta.json"))
    meta |= {name: older[name] for name in ("minTime", "maxTime", "stats")}
    drilling.replace_file(newest, "meta.json", json.dumps(meta).encode())
    for path in ("index", "chunks/000001", "tombstones"):
        body = drilling.files.get(f"{drilling.backup}/{before}/{path}")
        drilling.replace_file(newest, path, body)

    value = drilling.result(code=41)

    assert [f["kind"] for f in value["findings"]] == ["other-answer"]
    samples = tsdb_block_spec.blocks * 120
    assert f"is {samples - 120}, the source had {samples}" in value["findings"][0]["detail"]


def test_lost_tombstones_are_found_by_the_deleted_series(drilling: Drilling) -> None:
    for ulid in drilling.ulids()[:-1]:
        drilling.replace_file(ulid, "tombstones", EMPTY_TOMBSTONES)

    value = drilling.result(code=41)

    assert [f["kind"] for f in value["findings"]] == ["other-answer"]
    assert (
        '{series="3"} is 480, the source did not have this series' in value["findings"][0]["detail"]
    )


def test_backup_of_another_replica_is_found(drilling_3: Drilling, other_replica: Drillable) -> None:
    """The blocks and manifest of the other replica, with the fingerprints of this one."""
    theirs = LocalFiles(other_replica.root)
    mine = manifest_of(drilling_3.files, drilling_3.backup)["fingerprints"]
    swapped = Drilling(
        drilling_3.files, other_replica.backup, drilling_3.binaries, drilling_3.scratch
    )
    for key in theirs.all_keys():
        swapped.files.put(key, theirs.get(key))
    assert swapped.result()["verdict"] == "pass", "the backup itself is sound"

    swapped.change_manifest(lambda document: document.update(fingerprints=mine))
    value = swapped.result(code=41)

    assert {f["kind"] for f in value["findings"]} == {"other-answer"}
    failed = [f["query"] for f in value["fingerprints"] if f["verdict"] == "fail"]
    assert HEAD_SUM in failed


def test_one_sample_too_few_is_found(drilling: Drilling) -> None:
    def one_more(document: dict[str, Any]) -> None:
        (fingerprint,) = [f for f in document["fingerprints"] if f["query"] == HEAD_COUNT]
        sample = fingerprint["answer"]["series"][7]
        sample["value"] = str(int(sample["value"]) + 1)

    drilling.change_manifest(one_more)
    value = drilling.result(code=41)

    (finding,) = value["findings"]
    assert finding["kind"] == "other-answer"
    assert finding["key"] == f"{drilling.backup}/metadata.json"
    assert "is 40, the source had 41" in finding["detail"]


def test_block_that_prometheus_skips_is_found(drilling: Drilling) -> None:
    """Prometheus starts without a block whose meta.json it cannot read and only logs that."""
    ulid = drilling.ulids()[0]
    drilling.replace_file(ulid, "meta.json", b"{}")

    value = drilling.result(code=41)

    assert {f["kind"] for f in value["findings"]} == {"not-loaded", "other-answer"}
    assert any(ulid in line for line in value["log"]), "the log of Prometheus says which"


def test_block_that_prometheus_cannot_open_fails_and_its_log_is_shown(drilling: Drilling) -> None:
    ulid = drilling.ulids()[0]
    index = drilling.files.get(f"{drilling.backup}/{ulid}/index")
    drilling.replace_file(ulid, "index", index[:-4] + b"\0\0\0\0")  # the CRC of its TOC

    done = drilling.run()

    assert done.returncode == 41
    assert "not-started" in done.stdout
    assert "opening storage failed" in done.stdout
    assert "invalid checksum" in done.stdout
    assert "last lines of the Prometheus log:" in done.stdout


def test_chunk_that_cannot_be_read_fails_the_query_that_reads_it(drilling: Drilling) -> None:
    ulid = drilling.ulids()[0]
    chunks = bytearray(drilling.files.get(f"{drilling.backup}/{ulid}/chunks/000001"))
    chunks[20] ^= 1
    drilling.replace_file(ulid, "chunks/000001", bytes(chunks))

    value = drilling.result(code=41)

    (finding,) = value["findings"]
    assert "the query failed" in finding["detail"]
    assert "checksum mismatch" in finding["detail"]


def test_part_of_a_backup_runs_only_queries_of_its_time_range(
    drilling_3: Drilling,
) -> None:
    value = drilling_3.result("--from=-1h", code=3)

    assert value["blocks"] == 1
    assert value["part"]["end"] is None
    verdicts = {f["query"]: f["verdict"] for f in value["fingerprints"]}
    assert verdicts == {HEAD_SUM: "pass", HEAD_COUNT: "pass", ALL_COUNT: "inconclusive"}


def test_drill_of_a_part_passes_but_does_not_verify_the_whole_backup(drilling_3: Drilling) -> None:
    def without_all(document: dict[str, Any]) -> None:
        kept = [f for f in document["fingerprints"] if f["query"] != ALL_COUNT]
        document["fingerprints"] = kept

    drilling_3.change_manifest(without_all)
    assert drilling_3.result("--from=-1h")["verdict"] == "pass"

    listed = json_of(run_here("list", "--json", env=drilling_3.files.environment()))
    assert listed["backups"][0]["verified"]["level"] == "checksum"
    assert drilling_3.recorded()["part"]["start"]


def test_query_after_the_drilled_range_is_inconclusive(
    drilling_3: Drilling, tsdb_block_spec: BlockSpec
) -> None:
    value = drilling_3.result(f"--to={tsdb_block_spec.max_time + timedelta(days=1)}", code=3)

    assert value["blocks"] == 4
    assert {f["verdict"] for f in value["fingerprints"]} == {"inconclusive"}
    assert all("is after the drilled range" in f["detail"] for f in value["fingerprints"])


def test_time_range_without_blocks_is_inconclusive(drilling_3: Drilling) -> None:
    value = drilling_3.result("--from=2001-01-01", "--to=2001-01-02", code=3)
    assert value["cause"] == "it has no block in this time range"


def test_backup_without_fingerprints_is_inconclusive(drilling_3: Drilling) -> None:
    drilling_3.change_manifest(lambda document: document.update(fingerprints=[]))
    value = drilling_3.result(code=3)
    assert "no fingerprints" in value["cause"]
    assert value["seconds"]["start"] > 0, "Prometheus was started anyway"


def test_different_answer_of_another_major_version_is_not_a_finding(
    drilling_3: Drilling, prometheus_2: PrometheusBinaries
) -> None:
    """A range includes a sample at its start in 2.x, but not in 3.x."""

    def one_more(document: dict[str, Any]) -> None:
        document["fingerprints"][0]["answer"]["series"][0]["value"] = "1"

    drilling_3.change_manifest(one_more)
    value = drilling_3.result(code=3, PROMETHEUS_BINARY=str(prometheus_2.prometheus))

    assert value["findings"] == []
    assert "but the drill uses 2." in value["fingerprints"][0]["detail"]


def test_parent_of_another_block_is_not_required(
    drilling_3: Drilling,
) -> None:
    """Prometheus deletes the parents of a block that it loads."""
    parent, child = drilling_3.ulids()[:2]
    meta = json.loads(drilling_3.files.get(f"{drilling_3.backup}/{child}/meta.json"))
    meta["compaction"]["parents"] = [{"ulid": parent, "minTime": 0, "maxTime": 1}]
    drilling_3.replace_file(child, "meta.json", json.dumps(meta).encode())

    def name_parent(document: dict[str, Any]) -> None:
        (block,) = [b for b in document["blocks"] if b["ulid"] == child]
        block["parents"] = [parent]
        kept = [f for f in document["fingerprints"] if f["query"] != ALL_COUNT]
        document["fingerprints"] = kept

    drilling_3.change_manifest(name_parent)
    assert drilling_3.result()["verdict"] == "pass"
