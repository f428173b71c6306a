"""Both layouts side by side: `estimate`, and the advice of `check`, on real repositories."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import free_port
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.cli.commands.estimate import LAYOUT_COLUMNS
from prometheus_backup.cli.tables import table
from prometheus_backup.cost.estimate import basis_of_size, saving_of
from prometheus_backup.cost.prices import PRICES
from prometheus_backup.retention.policy import Policy
from tests.support.histories import DAY, GB, newest_night, put_backup
from tests.support.runs import settings
from tests.support.stored_backups import LocalFiles, json_of, run_here

ONE_NIGHT = {"RETENTION_DAILY": "1", "RETENTION_MONTHLY": "0", "RETENTION_YEARLY": "0"}


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory, prometheus_3: PrometheusBinaries, tsdb_blocks: Path
) -> Iterator[PrometheusServer]:
    """A Prometheus with blocks."""
    data = tmp_path_factory.mktemp("layouts") / "data"
    shutil.copytree(tsdb_blocks, data)
    with PrometheusServer(prometheus_3, data) as server:
        yield server
        server.kill()


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """Thirty nights of whole copies."""
    made = LocalFiles(tmp_path / "repository")
    for age in range(30):
        put_backup(made, newest_night() - age * DAY, size=100 * GB)
    return made


def advice(env: dict[str, str], *, code: int) -> list[str]:
    """Return the advice of `check`, which must be the same in text and in JSON."""
    found = json_of(run_here("check", "--json", env=env), code=code)["advice"]
    lines = run_here("check", env=env).stdout.splitlines()
    printed = [line.strip() for line in lines if "advice" in line]
    assert printed == [f"advice: {text}" for text in found]
    return list(found)


def layouts(*arguments: str, env: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the layouts of `estimate --json`, by name."""
    document = json_of(run_here("estimate", *arguments, "--json", env=env or {}))
    return {
        x["layout"] + (" + history" if x["history_days"] else ""): x for x in document["layouts"]
    }


def test_a_repository_of_both_layouts(source: PrometheusServer, tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "repository")
    files.root.mkdir()
    env = settings(source, files.root)
    assert run_here("backup", env=env).returncode == 0
    assert len(advice(env, code=0)) == 1
    assert run_here("backup", "--layout", "archive", env=env).returncode == 0

    document = json_of(run_here("estimate", "--json", env=env))

    assert document["stored_backups"] == 2
    kept = [k for k in files.all_keys() if k.startswith("archive/") and "/claims/" not in k]
    first = json_of(run_here("list", "--json", env=env))["backups"][0]
    archived = sum(len(files.get(k)) for k in kept)
    assert document["stored_bytes"] == pytest.approx(first["size_bytes"] + archived)
    # It is the newest backup that says what is in use, unless LAYOUT does.
    for given, used in (({}, "archive"), ({"LAYOUT": "full"}, "full")):
        assert layouts(env=env | given)[used]["in_use"]
    assert advice(env, code=0) == []


def test_check_names_bytes_where_the_prices_of_aws_do_not_hold(
    source: PrometheusServer, s3_bucket: S3Bucket
) -> None:
    env = settings(source, s3_bucket)
    assert run_here("backup", env=env).returncode == 0
    (text,) = advice(env, code=0)
    assert "dollars" not in text
    assert advice(env | {"LAYOUT": "archive"}, code=0) == []


@pytest.mark.parametrize(
    ("size", "storage_class", "advised"),
    [
        (100 * GB, "STANDARD", True),
        (100 * GB, None, True),
        (100 * GB, "GLACIER", True),
        (GB // 1000, None, True),
        # Requests, which are the larger part, hardly become fewer.
        (GB // 1000, "STANDARD", False),
    ],
)
def test_half_of_the_money_counts_where_there_are_prices(
    size: int, storage_class: str | None, advised: bool
) -> None:
    saving = saving_of(
        basis_of_size(size, timedelta(days=15)),
        policy=Policy(),
        storage_class=storage_class,
        prices=PRICES,
    )
    assert saving.more_than_half is advised
    assert ("US dollars a month" in str(saving)) is (storage_class is not None)


def test_check_names_the_bytes_elsewhere_and_needs_no_prometheus(files: LocalFiles) -> None:
    env = files.environment() | {
        "PROMETHEUS_URL": f"http://127.0.0.1:{free_port()}",
        "PROMETHEUS_DATA_DIR": str(files.root.parent / "none"),
    }
    found = layouts(env=env)

    (text,) = advice(env, code=20)

    full, archive = (found[x]["stored_bytes"] / 2**40 for x in ("full", "archive"))
    assert text.startswith(
        f"LAYOUT=archive would store {archive:.1f} TiB instead of {full:.1f} TiB"
    )
    assert "docs/explanation/cost.md" in text
    assert "dollars" not in text
    assert found["archive"]["difference_percent"] < -50


@pytest.mark.parametrize(
    "changes",
    [
        ONE_NIGHT,
        {"LAYOUT": "archive"},
        dict.fromkeys(ONE_NIGHT, "0"),
        {"RETENTION_DAILY": "36500"},
        {"REPOSITORY": f"file://{__file__}/repository"},
    ],
    ids=["little to share", "in use", "wrong policy", "too long to simulate", "no repository"],
)
def test_check_gives_no_advice(files: LocalFiles, changes: dict[str, str]) -> None:
    env = files.environment() | {"PROMETHEUS_URL": f"http://127.0.0.1:{free_port()}"} | changes
    assert json.loads(run_here("check", "--json", env=env).stdout)["advice"] == []


def test_an_empty_repository_without_blocks_has_no_advice_and_no_estimate(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    env = LocalFiles(tmp_path / "repository").environment() | {
        "PROMETHEUS_URL": f"http://127.0.0.1:{free_port()}",
        "PROMETHEUS_DATA_DIR": str(tmp_path / "none"),
    }
    assert advice(env, code=20) == []
    done = run_here("estimate", env=env)
    assert done.returncode == 2
    assert "found no backups and no data directory" in done.stderr


def test_an_archive_is_cheaper_and_its_history_costs_more() -> None:
    found = layouts("--tsdb-size", "100GB", "--retention-history", "400d")

    full, archive, history = (found[x] for x in ("full", "archive", "archive + history"))
    assert [x["in_use"] for x in (full, archive, history)] == [True, False, False]
    assert archive["stored_bytes"] < 0.42 * full["stored_bytes"]
    assert archive["stored_bytes"] < history["stored_bytes"] < full["stored_bytes"]
    for name in ("month", "next_12_months"):
        assert archive[name] < history[name] < full[name]
    assert (full["nightly_copied_bytes"] > 0, archive["nightly_copied_bytes"]) == (True, 0)
    difference = (archive["month"] / full["month"] - 1) * 100
    assert archive["difference_percent"] == pytest.approx(difference, abs=0.1)
    assert full["difference_percent"] == 0


def test_the_history_is_in_use_with_the_archive() -> None:
    found = layouts("--tsdb-size", "1TB", "--layout", "archive", "--retention-history", "1y")
    assert [name for name, x in found.items() if x["in_use"]] == ["archive + history"]
    only = layouts("--tsdb-size", "1TB", "--retention-history", "1y", env=ONE_NIGHT)
    assert {*only} == {"full", "archive", "archive + history"}
    assert (
        only["archive"]["stored_bytes"] > only["full"]["stored_bytes"]
    )  # heads wait to be deleted


def test_reading_is_billed_in_colder_classes_for_whole_copies_only() -> None:
    document = json_of(
        run_here(
            "estimate", "--tsdb-size", "1TB", "--json", env={"S3_STORAGE_CLASS": "STANDARD_IA"}
        )
    )
    archive = json_of(
        run_here(
            "estimate",
            "--tsdb-size",
            "1TB",
            "--layout",
            "archive",
            "--json",
            env={"S3_STORAGE_CLASS": "STANDARD_IA"},
        )
    )
    read, new = (
        next(s for s in d["strategies"] if s["in_use"])["retrieval"] for d in (document, archive)
    )
    share = document["backup"]["nightly_upload_bytes"] / document["backup"]["size_bytes"]
    assert new == pytest.approx(share * read, rel=1e-3)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_layouts_fit_a_terminal(width: int) -> None:
    rows = [
        ("full (in use)", "3.9 TiB", "83.1 GiB", "2,155", "92.39", "913.51", ""),
        ("archive", "1.6 TiB", "0 B", "1,595", "36.91", "251.14", "-60 %"),
        ("archive + history", "2.7 TiB", "0 B", "1,604", "64.12", "375.34", "-31 %"),
    ]
    lines = table(LAYOUT_COLUMNS, rows).lines(width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for row in rows:
        for cell in (row[0], row[1], row[4], row[5], row[6]):
            assert cell in text


def test_hourly_backups_are_estimated_from_their_pace(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "repository")
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for age in range(24 * 8):
        put_backup(files, now - age * timedelta(hours=1), size=100 * GB)
    env = files.environment() | {"RETENTION_ALL": "48h"}
    document = json_of(run_here("estimate", "--json", env=env))

    assert document["forecast"]["backups_per_day"] == 24
    assert document["kept_backups"] == pytest.approx(43 + 46, abs=3)
    nightly = layouts("--tsdb-size", "100GB")["archive"]["stored_bytes"]
    hourly = next(x for x in document["layouts"] if x["layout"] == "archive")["stored_bytes"]
    assert hourly <= 1.1 * nightly
