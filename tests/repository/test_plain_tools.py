"""Using the bucket without this tool: commands from users' notes, with the real `aws` client."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.aws_cli import AwsCli
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.s3 import S3Bucket, S3Endpoint
from devtools.seaweedfs import SeaweedFS
from tests.support.runs import settings
from tests.support.stored_backups import json_of, run_here

BUCKET = "health-tracker-prometheus-backups"
PRETTY = "jq ." if shutil.which("jq") else f"{sys.executable} -m json.tool"
NOTES = f"s3://{BUCKET}/prometheus-snapshots"


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> Iterator[S3Bucket]:
    """The bucket in the users' notes."""
    made = seaweedfs.endpoint().new_bucket(BUCKET)
    yield made
    made.remove()


def test_the_commands_in_users_notes_work_on_two_backups(
    start_prometheus: PrometheusFleet,
    prometheus: PrometheusServer,
    bucket: S3Bucket,
    aws: Callable[[S3Endpoint], AwsCli],
    tmp_path: Path,
) -> None:
    at = datetime.now(UTC) - timedelta(seconds=5)
    source = prometheus.query("devtools_head", at)
    assert source
    env = settings(prometheus, bucket)
    first, second = (json_of(run_here("backup", "--json", env=env))["backup_id"] for _ in range(2))
    json_of(run_here("verify", "--all", "--json", env=env))
    notes = aws(bucket.endpoint)

    newest = notes.shell(f"aws s3 ls {NOTES}/ | sort | tail -1")
    assert newest.split() == ["PRE", f"{second}/"]
    assert (
        notes.shell(f"aws s3 ls {NOTES}/ --recursive | grep metadata.json | wc -l").strip() == "2"
    )

    shown = json.loads(notes.shell(f"aws s3 cp {NOTES}/{second}/metadata.json - | {PRETTY}"))
    assert [*shown][:6] == [
        "snapshot_name",
        "backup_id",
        "timestamp",
        "prometheus_url",
        "retention_time",
        "storage_size_bytes",
    ]
    assert shown["backup_id"] == second

    key = f"prometheus-snapshots/{second}/metadata.json"
    tagging = json.loads(
        notes("s3api", "get-object-tagging", "--bucket", BUCKET, "--key", key).stdout
    )
    tags = {tag["Key"]: tag["Value"] for tag in tagging["TagSet"]}
    day = shown["timestamp"][:10]
    assert tags.pop("Type") in ("daily", "monthly", "yearly")
    assert tags == {
        "Date": day,
        "Month": day[:7],
        "Year": day[:4],
        "SnapshotName": second,
    }

    for backup in (first, second):
        copied = tmp_path / backup
        notes("s3", "cp", "--recursive", f"{NOTES}/{backup}/", str(copied))
        summed = notes.shell(f"cd {copied} && sha256sum -c SHA256SUMS").splitlines()
        files = [f for b in shown["blocks"] for f in b["files"]]
        assert len(summed) == len(files)
        assert all(line.endswith(": OK") for line in summed)

    with (tmp_path / first / "SHA256SUMS").open() as sums:
        altered = tmp_path / first / sums.readline().split()[1]
    altered.write_bytes(altered.read_bytes() + b"x")
    with pytest.raises(RuntimeError, match="computed checksum did NOT match"):
        notes.shell(f"cd {tmp_path / first} && sha256sum -c SHA256SUMS")

    restored = start_prometheus(
        prometheus.binaries, tmp_path / second, PrometheusOptions(scrape_interval=None)
    )
    assert restored.query("devtools_head", at) == source
    assert restored.loaded_blocks() == len(shown["blocks"])
