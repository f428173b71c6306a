"""`estimate`: its data sources and its output."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prometheus_backup.cost.compaction import Compactor
from prometheus_backup.cost.tsdb import expected_workload
from tests.support.histories import DAY, GB, newest_night, put_backup
from tests.support.stored_backups import LocalFiles, json_of, put_small_backup, run_here


def _by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {strategy["name"]: strategy for strategy in document["strategies"]}


def test_given_size_is_the_basis() -> None:
    document = json_of(run_here("estimate", "--tsdb-size", "100GB", "--json"))
    load = expected_workload(100 * 1000**3, Compactor.of(timedelta(days=15)))
    assert document["backup"] == {
        "size_bytes": 100 * 1000**3,
        "blocks": load.blocks,
        "files": load.files,
        "nightly_upload_bytes": load.upload,
    }
    assert document["kept_bytes"] == pytest.approx(
        document["kept_backups"] * 100 * 1000**3, rel=1e-3
    )
    assert document["policy"] == {"daily": 30, "monthly": 12, "yearly": 3}
    assert (document["stored_backups"], document["stored_bytes"]) == (0, 0)


def test_given_nightly_upload_replaces_the_computed_one() -> None:
    given = ("--tsdb-size", "100GB", "--tsdb-retention", "90d", "--nightly-upload", "5GB")
    document = json_of(run_here("estimate", *given, "--json"))
    assert document["backup"]["nightly_upload_bytes"] == 5 * 1000**3
    assert document["backup"]["blocks"] == 20


def test_the_next_12_months_are_given_in_sum_and_by_month() -> None:
    document = json_of(run_here("estimate", "--tsdb-size", "100GB", "--json"))

    (used,) = [s for s in document["strategies"] if s["in_use"]]
    assert used["name"] == "STANDARD"
    coming = document["forecast"]
    assert (coming["layout"], coming["storage_class"]) == ("full", "STANDARD")
    assert len(coming["months"]) == 12
    total = sum(m["dollars"] for m in coming["months"])
    assert coming["dollars"] == pytest.approx(total, abs=0.01)
    assert used["next_12_months"] == coming["dollars"]


def test_the_class_in_use_is_marked() -> None:
    env = {"S3_STORAGE_CLASS": "GLACIER_IR"}
    done = run_here("estimate", "--tsdb-size", "100GB", env=env)
    marked = [line for line in done.stdout.splitlines() if "(in use)" in line]
    assert [line.split("  ")[0] for line in marked] == ["GLACIER_IR (in use)", "full (in use)"]
    assert "US dollars with GLACIER_IR" in done.stdout


def test_outside_s3_the_estimate_speaks_of_bytes(tmp_path: Path) -> None:
    files, night = LocalFiles(tmp_path / "repository"), newest_night()
    for age in range(40):
        put_backup(files, night - age * DAY, size=100 * GB - age * GB)

    done = run_here("estimate", env=files.environment())
    document = json_of(run_here("estimate", "--json", env=files.environment()))

    for word in ("dollars", "STANDARD", "GLACIER", "AWS", "S3", "price"):
        assert word not in done.stdout
    assert document["strategies"] == []
    assert document["prices"] is None
    assert document["forecast"]["growth_bytes_per_day"] == GB
    assert document["forecast"]["dollars"] is None
    stored = [m["stored_bytes"] for m in document["forecast"]["months"]]
    assert stored == sorted(stored)
    assert "backups grow by 953.7 MiB a day, like those of the last 39 days" in done.stdout


def test_newest_good_backup_and_recorded_uploads_are_the_basis(
    repository_files: LocalFiles,
) -> None:
    env = repository_files.environment()
    newest = json_of(run_here("show", "latest", "--json", env=env))["manifest"]
    document = json_of(run_here("estimate", "--json", env=env))
    totals = newest["totals"]
    assert newest["backup_id"] in document["source"]
    assert document["backup"]["size_bytes"] == totals["bytes"]
    assert document["backup"]["files"] == totals["files"]
    assert totals["copied_bytes"] > 0
    assert document["backup"]["nightly_upload_bytes"] == totals["uploaded_bytes"]
    assert document["stored_backups"] == 2


def test_data_directory_is_the_basis_without_backups(tmp_path: Path, tsdb_blocks: Path) -> None:
    (tmp_path / "empty").mkdir()
    env = {"REPOSITORY": f"file://{tmp_path}/empty", "PROMETHEUS_DATA_DIR": str(tsdb_blocks)}
    document = json_of(run_here("estimate", "--json", env=env))
    files = [p for p in tsdb_blocks.glob("01*/**/*") if p.is_file()]
    assert document["backup"]["size_bytes"] == sum(p.stat().st_size for p in files)
    assert document["backup"]["files"] == len(files)
    assert document["backup"]["blocks"] == 4


def test_error_names_the_options_if_there_is_no_basis(tmp_path: Path) -> None:
    done = run_here("estimate", env={"PROMETHEUS_DATA_DIR": str(tmp_path / "absent")})
    assert done.returncode == 2
    assert "--tsdb-size" in done.stderr


def test_output_names_its_basis_and_assumptions() -> None:
    done = run_here(
        "estimate", "--tsdb-size", "1TB", "--verify-days", "30", "--noncurrent-days", "14"
    )
    assert done.returncode == 0
    assert "list prices of us-east-1 as of 20" in done.stdout
    assert "once in 30 days" in done.stdout
    assert "deleted objects for 14 days" in done.stdout
    rows = done.stdout.splitlines()[1:11]
    assert all(row.split()[0].rstrip(",").isupper() for row in rows)
    assert "12 h" in rows[-1]


def test_fewer_kept_backups_cost_less() -> None:
    months = [
        _by_name(json_of(run_here("estimate", "--tsdb-size", "1TB", "--json", *policy)))
        for policy in ((), ("--retention-daily", "7"))
    ]
    for name, month in months[0].items():
        assert months[1][name]["storage"] < month["storage"]


def test_price_file_replaces_list_prices(tmp_path: Path) -> None:
    usual = json_of(run_here("estimate", "--tsdb-size", "1TB", "--json"))
    prices = usual["prices"]["classes"]
    prices["STANDARD"]["gb_month"] *= 2
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    given = ("--tsdb-size", "1TB", "--prices", str(tmp_path / "prices.json"))
    document = json_of(run_here("estimate", *given, "--json"))
    assert document["prices"]["classes"] == prices
    before, after = (_by_name(d)["STANDARD"]["storage"] for d in (usual, document))
    assert after == pytest.approx(2 * before, rel=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tsdb-size", "much"),
        ("--tsdb-size", "1TB", "--tsdb-retention", "long"),
        ("--tsdb-size", "1TB", "--prices", "/nonexistent/prices.json"),
        ("--tsdb-size", "1TB", "--prices", __file__),
        ("--tsdb-size", "1TB", "--retention-daily", "36500"),
    ],
)
def test_unreadable_values_are_usage_errors(arguments: tuple[str, ...]) -> None:
    assert run_here("estimate", *arguments).returncode == 2


def test_single_backup_is_assumed_to_have_a_steady_size(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    files = LocalFiles(tmp_path / "r")
    put_small_backup(files, datetime(2025, 1, 22, 2, tzinfo=UTC))
    document = json_of(run_here("estimate", "--json", env=files.environment()))
    assert (
        document["backup"]["nightly_upload_bytes"]
        == expected_workload(10, Compactor.of(timedelta(days=15))).upload
    )
    assert any("no backup shows it yet" in text for text in document["assumptions"])
