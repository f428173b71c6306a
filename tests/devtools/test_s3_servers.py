"""The S3 servers and the `aws` client."""

from collections.abc import Callable

import psutil
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from devtools.aws_cli import AwsCli
from devtools.moto_server import MotoServer
from devtools.s3 import S3Bucket, S3Endpoint
from devtools.seaweedfs import READ_ONLY, SeaweedFS


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def test_seaweedfs_listens_on_loopback_only(seaweedfs: SeaweedFS) -> None:
    addresses = {
        connection.laddr.ip
        for connection in psutil.Process(seaweedfs.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_seaweedfs_stores_lists_tags_and_deletes(s3_bucket: S3Bucket) -> None:
    data = bytes(range(256)) * 40_000
    s3_bucket.put("a/large", data)
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="b", Body=b"", Tagging="Type=daily")
    assert s3_bucket.sizes() == {"a/large": len(data), "b": 0}
    assert s3_bucket.get("a/large") == data
    assert s3_bucket.tags("b") == {"Type": "daily"}
    s3_bucket.delete("b")
    assert s3_bucket.keys() == ["a/large"]


def test_seaweedfs_enforces_permissions_and_creates_no_bucket_by_itself(
    seaweedfs: SeaweedFS, s3_bucket: S3Bucket
) -> None:
    reader = seaweedfs.endpoint(READ_ONLY).client
    reader.list_objects_v2(Bucket=s3_bucket.name)
    with pytest.raises(ClientError) as denied:
        reader.put_object(Bucket=s3_bucket.name, Key="x", Body=b"")
    assert _code(denied.value) == "AccessDenied"
    with pytest.raises(ClientError) as missing:
        s3_bucket.client.put_object(Bucket="no-such-bucket", Key="x", Body=b"")
    assert _code(missing.value) == "NoSuchBucket"


def test_seaweedfs_keeps_data_across_a_restart_and_can_be_killed(own_seaweedfs: SeaweedFS) -> None:
    bucket = own_seaweedfs.endpoint().new_bucket()
    bucket.put("key", b"value")
    own_seaweedfs.restart()
    assert bucket.get("key") == b"value"
    own_seaweedfs.kill()
    with pytest.raises(EndpointConnectionError):
        bucket.get("key")


def test_moto_enforces_iam_on_request(moto: MotoServer, moto_bucket: S3Bucket) -> None:
    user = moto.new_user({"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"})
    client = moto.endpoint(user).client
    with moto.enforcing_iam():
        client.list_objects_v2(Bucket=moto_bucket.name)
        with pytest.raises(ClientError) as denied:
            client.put_object(Bucket=moto_bucket.name, Key="x", Body=b"")
    assert _code(denied.value) == "AccessDenied"
    client.put_object(Bucket=moto_bucket.name, Key="x", Body=b"")


def _user(moto: MotoServer, bucket: S3Bucket, rights: dict[str, str]) -> S3Bucket:
    """Return the bucket for a new user with these actions, each for a key pattern."""
    statements: list[dict[str, object]] = [
        {"Effect": "Allow", "Action": action, "Resource": f"arn:aws:s3:::{bucket.name}/{keys}"}
        for action, keys in rights.items()
    ]
    return S3Bucket(moto.endpoint(moto.new_user(*statements)), bucket.name)


def test_moto_checks_each_key_of_a_bulk_deletion(moto: MotoServer, moto_bucket: S3Bucket) -> None:
    for key in ("mine/a", "theirs/b"):
        moto_bucket.put(key, b"")
    user = _user(moto, moto_bucket, {"s3:DeleteObject": "mine/*"})
    both = {"Objects": [{"Key": "mine/a"}, {"Key": "theirs/b"}]}
    with moto.enforcing_iam():
        answer = user.client.delete_objects(Bucket=user.name, Delete=both)  # type: ignore[arg-type]
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("theirs/b", "AccessDenied")]
    assert moto_bucket.keys() == ["theirs/b"]


def test_moto_checks_the_source_of_a_copy(moto: MotoServer, moto_bucket: S3Bucket) -> None:
    for key in ("mine/a", "theirs/b"):
        moto_bucket.put(key, b"")
    user = _user(moto, moto_bucket, {"s3:GetObject": "mine/*", "s3:PutObject": "mine/*"})

    def copy(key: str) -> None:
        source = {"Bucket": user.name, "Key": key}
        user.client.copy_object(Bucket=user.name, Key="mine/new", CopySource=source)  # type: ignore[arg-type]

    with moto.enforcing_iam():
        copy("mine/a")
        with pytest.raises(ClientError) as denied:
            copy("theirs/b")
    assert _code(denied.value) == "AccessDenied"


def test_moto_checks_the_tags_of_a_write(moto: MotoServer, moto_bucket: S3Bucket) -> None:
    user = _user(moto, moto_bucket, {"s3:PutObject": "*"})
    with moto.enforcing_iam():
        user.put("plain", b"")
        with pytest.raises(ClientError) as denied:
            user.client.put_object(Bucket=user.name, Key="tagged", Body=b"", Tagging="Type=daily")
    assert _code(denied.value) == "AccessDenied"
    assert moto_bucket.keys() == ["plain"]


def test_moto_stores_class_and_encryption(moto_bucket: S3Bucket) -> None:
    moto_bucket.client.put_object(
        Bucket=moto_bucket.name,
        Key="x",
        Body=b"1",
        StorageClass="STANDARD_IA",
        ServerSideEncryption="AES256",
    )
    head = moto_bucket.client.head_object(Bucket=moto_bucket.name, Key="x")
    assert (head["StorageClass"], head["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")


def test_aws_client_works_with_both_servers(
    aws: Callable[[S3Endpoint], AwsCli], s3_bucket: S3Bucket, moto_bucket: S3Bucket
) -> None:
    for bucket in (s3_bucket, moto_bucket):
        client = aws(bucket.endpoint)
        client.shell(f"echo hello | aws s3 cp - s3://{bucket.name}/dir/key")
        assert client("s3", "ls", f"s3://{bucket.name}/").stdout.split() == ["PRE", "dir/"]
        assert bucket.get("dir/key") == b"hello\n"
        with pytest.raises(RuntimeError, match="NoSuchBucket"):
            client("s3", "ls", "s3://no-such-bucket/")
