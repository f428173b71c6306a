"""Objects in an archive class: the messages about them, and what works without them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.aws_cli import AwsCli
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket, S3Endpoint
from prometheus_backup.errors import ObjectArchived
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.archived import thaw_command
from tests.support.runs import settings
from tests.support.s3 import PREFIX, open_s3
from tests.support.stored_backups import (
    S3Files,
    StoredBackups,
    block_keys,
    copy_to,
    json_of,
    run_here,
)

CLASSES = ("GLACIER", "DEEP_ARCHIVE")


@pytest.fixture
def files(moto_bucket: S3Bucket, stored: StoredBackups) -> S3Files:
    """A bucket with two real backups."""
    made = S3Files(moto_bucket, PREFIX)
    copy_to(made, stored.root)
    return made


def _archive(files: S3Files, key: str, storage_class: str = "GLACIER") -> None:
    """Move an object to an archive class, like a lifecycle rule."""
    name, full = files.bucket.name, f"{files.prefix}/{key}"
    files.bucket.client.copy_object(
        Bucket=name,
        Key=full,
        CopySource={"Bucket": name, "Key": full},
        StorageClass=storage_class,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("storage_class", CLASSES)
@pytest.mark.parametrize("call", ["get", "stream", "copy"])
def test_an_archived_object_is_not_reported_as_denied_or_missing(
    moto_bucket: S3Bucket, storage_class: str, call: str
) -> None:
    store = open_s3(moto_bucket)
    store.put_small("file", b"x", options=PutOptions(storage_class=storage_class))
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("file", limit=1),
        "stream": lambda: list(store.stream("file")),
        "copy": lambda: store.copy("file", "copy", size=1, options=PutOptions()),
    }
    with pytest.raises(ObjectArchived, match="it is archived"):
        calls[call]()
    assert store.head("file").size == 1


def test_a_restore_prints_how_to_thaw_and_succeeds_afterwards(
    files: S3Files, stored: StoredBackups, aws: Callable[[S3Endpoint], AwsCli], tmp_path: Path
) -> None:
    for key in block_keys(files, stored.second)[
        :2
    ]:  # only two, because each starts the `aws` client
        _archive(files, key)
    restore = ("restore", stored.second, str(tmp_path / "target"))
    done = run_here(*restore, "--json", env=files.environment())
    error = json_of(done, code=13)
    assert error["kind"] == "ObjectArchived"
    command, _, progress = error["hint"].partition(": aws ")[2].partition(" ; ")
    command = f"aws {command}"
    assert command == thaw_command(files.bucket.name, f"{PREFIX}/{stored.second}/")

    client = aws(files.bucket.endpoint)
    client.shell(command)
    head = client.shell(progress.partition(": ")[2])
    assert all(key in head for key in block_keys(files, stored.second))
    assert run_here(*restore, env=files.environment()).returncode == 0


def test_a_verification_of_archived_data_is_inconclusive(
    files: S3Files, stored: StoredBackups
) -> None:
    _archive(files, block_keys(files, stored.second)[0])
    done = run_here("verify", stored.second, "--json", env=files.environment())
    (result,) = json_of(done, code=3)["results"]
    assert result["verdict"] == "inconclusive"
    assert "archived" in result["cause"]
    assert "aws s3api restore-object" in done.stderr
    assert run_here("verify", "--level", "size", env=files.environment()).returncode == 0


@pytest.mark.parametrize("name", ["metadata.json", "verification-checksum.json"])
def test_an_archived_control_file_does_not_hide_the_other_backups(
    files: S3Files, stored: StoredBackups, tmp_path: Path, name: str
) -> None:
    env = files.environment()
    assert run_here("verify", "--all", env=env).returncode == 0
    _archive(files, f"{stored.second}/{name}")
    first, second = json_of(run_here("list", "--json", env=env))["backups"]
    assert (first["state"], second["state"]) == ("committed", "archived")
    assert json_of(run_here("show", "latest", "--json", env=env))["backup_id"] == stored.first
    assert json_of(run_here("verify", "--all", "--json", env=env), code=3)["outcome"] == "partial"
    pruned = json_of(run_here("prune", "--json", env=env), code=3)
    assert (pruned["deleted"], pruned["unreadable"]) == ([], [stored.second])
    samples = json_of(run_here("metrics", "--json", env=env))["metrics"]
    unusable = {
        sample["labels"]["cause"]: sample["value"]
        for sample in samples
        if sample["name"] == "prometheus_backup_unusable_backups"
    }
    assert (unusable["archived"], unusable["unreadable"]) == (1, 0)
    done = run_here("restore", stored.second, str(tmp_path / "target"), "--json", env=env)
    error = json_of(done, code=13)
    assert f"--prefix {PREFIX}/{stored.second}/" in error["hint"]


@pytest.fixture
def source(
    prometheus_3: PrometheusBinaries, tsdb_blocks: Path, tmp_path: Path
) -> Iterator[PrometheusServer]:
    """A Prometheus to back up."""
    shutil.copytree(tsdb_blocks, tmp_path / "data")
    with PrometheusServer(prometheus_3, tmp_path / "data") as server:
        yield server
        server.kill()


def test_a_backup_uploads_what_it_cannot_copy_from_the_archive(
    moto_bucket: S3Bucket, source: PrometheusServer
) -> None:
    env, files = settings(source, moto_bucket), S3Files(moto_bucket, PREFIX)
    first = json_of(run_here("backup", "--json", env=env))["backup_id"]
    archived = [k for k in block_keys(files, first) if k.endswith("/index")]
    size = sum(len(files.get(key)) for key in archived)
    for key in archived:
        _archive(files, key)
    done = run_here("backup", "--json", env=env)
    second = json_of(done)
    assert second["totals"]["uploaded_bytes"] > size > 0
    assert "archived" in done.stderr
    for key in block_keys(files, second["backup_id"]):
        assert files.get(key)
