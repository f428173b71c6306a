"""Runs the `aws` commands of the operations pages with the real client against moto."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from devtools.aws_cli import AwsCli
from devtools.moto_server import MotoServer
from devtools.s3 import S3Bucket, S3Endpoint
from prometheus_backup.stores.archived import thaw_command
from tests.support.aws_policies import BUCKET, PREFIX
from tests.support.pages import DOCS, Page
from tests.support.stored_backups import S3Files, put_small_backup

SECURITY = Page(DOCS / "explanation" / "security.md")
TROUBLESHOOTING = Page(DOCS / "how-to" / "troubleshooting.md")
TAKEN = datetime(2025, 1, 22, 2, tzinfo=UTC)
BACKUP = "backup-20250122-020000"  # as named on the pages
USER = "prometheus-backup"


@pytest.fixture
def client(moto: MotoServer, aws: Callable[[S3Endpoint], AwsCli]) -> AwsCli:
    """The real client with administrator credentials."""
    return aws(moto.endpoint())


@pytest.fixture
def files(moto: MotoServer) -> S3Files:
    """The bucket and the backup that the pages name."""
    files = S3Files(moto.endpoint().new_bucket(BUCKET), PREFIX)
    assert put_small_backup(files, TAKEN) == BACKUP
    return files


def _lines(page: Page, start: str) -> list[str]:
    """Return the commands of a page that start with this text."""
    blocks = [block.text for block in page.blocks("bash")]
    found = [line for text in blocks for line in text.splitlines() if line.startswith(start)]
    assert found, f"{page.name} has no {start}"
    return found


def test_key_rotation_always_leaves_a_valid_key(moto: MotoServer, client: AwsCli) -> None:
    iam = moto.iam()
    iam.create_user(UserName=USER)
    old = iam.create_access_key(UserName=USER)["AccessKey"]["AccessKeyId"]
    create, look, switch_off, delete = (
        line.replace("AKIAOLD", old)
        for line in [
            *_lines(SECURITY, "aws iam create-access-key"),
            *_lines(SECURITY, "aws iam list-access-keys"),
            *_lines(SECURITY, "aws iam update-access-key"),
            *_lines(SECURITY, "aws iam delete-access-key"),
        ]
    )
    assert "SecretAccessKey" in client.shell(create)
    assert old in client.shell(look)

    def statuses() -> list[str]:
        return [k["Status"] for k in iam.list_access_keys(UserName=USER)["AccessKeyMetadata"]]

    assert statuses() == ["Active", "Active"]
    client.shell(switch_off)
    assert sorted(statuses()) == ["Active", "Inactive"]
    client.shell(delete)
    assert statuses() == ["Active"]


def test_trail_records_objects_of_the_bucket(client: AwsCli, files: S3Files) -> None:
    logs = files.bucket.endpoint.new_bucket()
    trail = ("--name", "management-events", "--s3-bucket-name", logs.name)
    client("cloudtrail", "create-trail", *trail)
    put, look = _lines(SECURITY, "aws cloudtrail")
    client.shell(put)
    assert f"arn:aws:s3:::{BUCKET}/" in client.shell(look)


def test_deleted_backup_is_found_by_its_markers_and_restored(
    client: AwsCli, files: S3Files
) -> None:
    bucket = files.bucket
    bucket.client.put_bucket_versioning(
        Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"}
    )
    manifest = files.get(f"{BACKUP}/metadata.json")
    files.put(f"{BACKUP}/metadata.json", manifest)
    files.delete(f"{BACKUP}/metadata.json")
    (line,) = _lines(SECURITY, "aws s3api list-object-versions")
    key, version = client.shell(line).split()
    assert key == f"{PREFIX}/{BACKUP}/metadata.json"
    client("s3api", "delete-object", "--bucket", BUCKET, "--key", key, "--version-id", version)
    assert files.get(f"{BACKUP}/metadata.json") == manifest


def test_page_thaws_with_the_command_of_the_hint(client: AwsCli, files: S3Files) -> None:
    (line,) = _lines(TROUBLESHOOTING, "aws s3api list-objects-v2")
    assert line == thaw_command(BUCKET, f"{PREFIX}/{BACKUP}/")
    (key,) = [k for k in files.all_keys() if k.endswith("/index")]
    full = {"Bucket": BUCKET, "Key": f"{PREFIX}/{key}"}
    _archive(files.bucket, full["Key"])
    client.shell(line)
    head = files.bucket.client.head_object(Bucket=BUCKET, Key=full["Key"])
    assert 'ongoing-request="false"' in head["Restore"]  # moto thaws on the second request


def _archive(bucket: S3Bucket, key: str) -> None:
    bucket.client.copy_object(
        Bucket=BUCKET,
        Key=key,
        CopySource={"Bucket": BUCKET, "Key": key},
        StorageClass="GLACIER",
    )


def test_commands_of_the_permissions_page_show_user_and_policy(
    client: AwsCli, files: S3Files
) -> None:
    assert "Arn" in client.shell(*_lines(TROUBLESHOOTING, "aws sts"))
    assert BACKUP in client.shell(*_lines(TROUBLESHOOTING, "aws s3 ls"))
    assert files.all_keys()
