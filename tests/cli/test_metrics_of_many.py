"""`metrics --repositories`: the repositories of a fleet, from a file."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from devtools.s3 import S3Bucket
from prometheus_backup.metrics.exposition import parse
from prometheus_backup.metrics.families import Sample
from tests.support.exporter import Served
from tests.support.started_cli import StartedCli
from tests.support.stored_backups import LocalFiles, S3Files, put_small_backup, run_here
from tests.support.waiting import wait_until

_GOOD = "prometheus_backup_good_backups"
_READABLE = "prometheus_backup_repository_readable"
_READ_AT = "prometheus_backup_repository_read_timestamp_seconds"
_YESTERDAY = datetime.now(UTC) - timedelta(days=1)


def _file(folder: Path, *entries: Any) -> Path:
    path = folder / "repositories.yaml"
    path.write_text(yaml.safe_dump({"repositories": [*entries]}))
    return path


def _repositories(folder: Path, number: int) -> list[LocalFiles]:
    made = [LocalFiles(folder / f"repository-{n}") for n in range(number)]
    for files in made:
        put_small_backup(files, _YESTERDAY)
    return made


def _entry(files: LocalFiles, **more: Any) -> dict[str, Any]:
    return {"repository": f"file://{files.root}", **more}


def _samples(text: str, name: str) -> list[Sample]:
    return [s for s in parse(text) if s.name == name]


def test_each_repository_has_its_own_labels_and_settings(tmp_path: Path) -> None:
    one, two = _repositories(tmp_path, 2)
    file = _file(
        tmp_path,
        _entry(one, labels={"cluster": "a", "replica": "prometheus-0"}, backup_interval="6h"),
        _entry(two, retention_daily=0, retention_yearly=0, retention_monthly=1),
    )
    env = {"METRICS_LABELS": "cluster=common,team=x", "S3_BUCKET": "of-other-commands"}

    done = run_here("metrics", f"--repositories={file}", env=env)

    assert done.returncode == 0, done.stderr
    assert [dict(s.labels) for s in _samples(done.stdout, _GOOD)] == [
        {
            "repository": f"file://{one.root}",
            "cluster": "a",
            "replica": "prometheus-0",
            "team": "x",
        },
        {"repository": f"file://{two.root}", "cluster": "common", "team": "x"},
    ]
    intervals = _samples(done.stdout, "prometheus_backup_expected_interval_seconds")
    assert [s.value for s in intervals] == [6 * 3600, 24 * 3600]
    tiers = {
        (s.labels["repository"].rpartition("-")[2], s.labels["tier"]): s.value
        for s in _samples(done.stdout, "prometheus_backup_backups")
    }
    assert (tiers["0", "monthly"], tiers["1", "monthly"]) == (0, 1)


def test_unreadable_repository_does_not_hide_the_others(tmp_path: Path) -> None:
    one, two = _repositories(tmp_path, 2)
    broken = tmp_path / "broken"
    broken.touch()
    file = _file(tmp_path, _entry(one), {"repository": f"file://{broken}"}, _entry(two))

    done = run_here("metrics", f"--repositories={file}")

    assert done.returncode == 3
    assert [s.value for s in _samples(done.stdout, _GOOD)] == [1, 1]
    assert str(broken) in done.stderr


def test_exporter_serves_fifty_repositories_in_little_memory(
    s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    names = [f"fleet/{n}" for n in range(50)]
    for name in names:
        put_small_backup(S3Files(s3_bucket, name), _YESTERDAY)
    entries = [
        {"repository": f"s3://{s3_bucket.name}/{name}", "labels": {"replica": name}}
        for name in names
    ]
    file = _file(tmp_path, *entries)
    command = ("metrics", "--listen=127.0.0.1:0", "--refresh=1", f"--repositories={file}")
    env = s3_bucket.endpoint.environment()
    with StartedCli(*command, env=env, directory=tmp_path / "run") as started:
        served = Served(started)
        wait_until(lambda: len(_samples(served.get("/metrics").text, _GOOD)) == 50, deadline=200)
        page = served.get("/metrics").text
        last = _samples(page, _READ_AT)[-1]
        wait_until(
            lambda: _samples(served.get("/metrics").text, _READ_AT)[-1].value > last.value,
            deadline=200,
        )
        memory = psutil.Process(started.pid).memory_info().rss

    found = Counter((s.labels["replica"], s.value) for s in _samples(page, _GOOD))
    assert found == {(name, 1): 1 for name in names}
    assert memory < 256 << 20, "also after it has read all of them again"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (None, "No such file or directory"),
        ("", "the file: "),
        ("[]", "the file: "),
        ("repositories: []", "repositories: "),
        ("repositories: [{}]", "repositories.0.repository: field required"),
        ("repositories: [{repository: 3}]", "repositories.0.repository: "),
        ("repositories: [{repository: 'file:///r', retention: 3}]", "repositories.0.retention: "),
        ("repositories: [{repository: 'file:///r', retention_daily: -1}]", "retention_daily"),
        ("repositories: [{repository: 'ftp://r'}]", "entry 1"),
        ("repositories: [{repository: 'file:///r', labels: {level: x}}]", "entry 1"),
        ("repositories: [{repository: 'file:///r', labels: {a: 'b,c'}}]", "entry 1"),
        ("repositories: [{repository: 'file:///r', backup_interval: often}]", "entry 1"),
        ("repositories: [{repository: 'file:///r'}, {repository: 'file:///r/'}]", "twice"),
        ("a: b: c", "mapping values are not allowed"),
        ("\x00", "unacceptable character"),
    ],
)
def test_file_that_cannot_be_used_is_a_usage_error(
    tmp_path: Path, text: str | None, cause: str
) -> None:
    file = tmp_path / "repositories.yaml"
    if text is not None:
        file.write_text(text)

    done = run_here("metrics", f"--repositories={file}")

    assert (done.returncode, done.stdout) == (2, "")
    assert cause in done.stderr
    assert "Traceback" not in done.stderr


def test_exporter_links_to_the_report_of_each_repository(tmp_path: Path) -> None:
    one, two = _repositories(tmp_path, 2)
    (tmp_path / "broken").touch()
    broken = {"repository": f"file://{tmp_path}/broken"}
    file = _file(tmp_path, _entry(one), _entry(two), broken)
    command = ("metrics", "--listen=127.0.0.1:0", f"--repositories={file}")
    with StartedCli(*command, env={}, directory=tmp_path / "run") as started:
        served = Served(started)
        wait_until(lambda: len(_samples(served.get("/metrics").text, _READABLE)) == 3)
        page = served.get("/metrics").text
        index = served.get("/").text
        reports = [served.get(f"/{path}") for path in re.findall(r'href="(\w+)"', index)]

    assert [s.value for s in _samples(page, _READABLE)] == [1, 1, 0]
    assert [report.status_code for report in reports] == [200, 200, 503]
    assert str(one.root) in index
    assert str(one.root) in reports[0].text
    assert str(two.root) in reports[1].text
