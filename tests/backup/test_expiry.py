"""Lifecycle rules that would delete what archive backups share: `backup` and `check` on S3."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from devtools.moto_server import MotoServer
from devtools.s3 import S3Bucket
from tests.support.aws_policies import PREFIX, document, statements
from tests.support.contents import tree
from tests.support.limited_store import LimitedStore, refusal
from tests.support.stored_backups import json_of, run_here

LINE = "repository: lifecycle rules"
ALL = {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 400}}
SPARING = ALL | {"Filter": {"Prefix": f"{PREFIX}/backup-"}}


def give_rules(bucket: S3Bucket, *rules: Mapping[str, Any]) -> None:
    configuration: Any = {"Rules": [*rules]}
    bucket.client.put_bucket_lifecycle_configuration(
        Bucket=bucket.name, LifecycleConfiguration=configuration
    )


def environment(bucket: S3Bucket, data: Path, **more: str) -> dict[str, str]:
    """Settings of an archive backup of the blocks on disk, without a Prometheus."""
    return {
        **bucket.endpoint.environment(),
        "S3_BUCKET": bucket.name,
        "S3_PREFIX": PREFIX,
        "PROMETHEUS_URL": "http://127.0.0.1:1",
        "PROMETHEUS_DATA_DIR": str(data),
        "SNAPSHOT_MODE": "blocks",
        "LAYOUT": "archive",
        **more,
    }


def backup(env: Mapping[str, str], *, code: int) -> str:
    """Run `backup`; return its log."""
    done = run_here("backup", env=env)
    assert done.returncode == code, done.stderr
    return done.stderr


def checked(env: Mapping[str, str]) -> dict[str, Any] | None:
    """The line of `check` on the rules."""
    document = json.loads(run_here("check", "--json", env=env).stdout)
    return next((line for line in document["checks"] if line["subject"] == LINE), None)


@pytest.fixture(params=["moto", "seaweedfs"])
def bucket(request: pytest.FixtureRequest) -> S3Bucket:
    """An empty bucket of AWS, as moto has it, and of SeaweedFS, which has lifecycles too."""
    found = request.getfixturevalue("moto_bucket" if request.param == "moto" else "s3_bucket")
    assert isinstance(found, S3Bucket)
    return found


def test_first_archive_backup_is_refused_and_writes_nothing(
    bucket: S3Bucket, data_dir: Path
) -> None:
    give_rules(bucket, ALL)
    env = environment(bucket, data_dir)
    before = {name for name in tree(data_dir) if not name.startswith(".prometheus-backup")}

    log = backup(env, code=2)

    assert (
        f"cannot keep blocks in s3://{bucket.name}/{PREFIX}/archive: lifecycle rule tidy expires "
        "objects after 400 days" in log
    )
    assert "limit the rule to keys that begin with backup- below the prefix" in log
    assert bucket.keys() == []
    assert before <= tree(data_dir).keys()
    line = checked(env)
    assert line is not None
    assert not line["ok"]
    assert "lifecycle rule tidy" in line["detail"]
    assert line["fix"].startswith("limit the rule")
    assert run_here("check", env=env).returncode == 2

    give_rules(bucket, SPARING)
    backup(env, code=0)
    line = checked(env)
    assert line is not None
    assert line["ok"]
    assert line["detail"] == "none expires objects below archive/"


def test_later_archive_backup_does_not_look_again_but_check_does(
    bucket: S3Bucket, data_dir: Path
) -> None:
    env = environment(bucket, data_dir)
    backup(env, code=0)
    give_rules(bucket, ALL)

    backup(env, code=0)

    entries = json_of(run_here("list", "--json", env=env))["backups"]
    assert [e["state"] for e in entries] == ["committed", "committed"]
    for layout in ("archive", "full"):
        line = checked(env | {"LAYOUT": layout})
        assert line is not None
        assert not line["ok"], "the archive is there, whatever the next backup is"


def test_layout_full_is_not_affected(bucket: S3Bucket, data_dir: Path) -> None:
    env = environment(bucket, data_dir, LAYOUT="full")
    assert checked(env) is None
    give_rules(bucket, ALL)
    line = checked(env)
    assert line is not None
    assert line["ok"]
    assert line["detail"] == (
        "rule tidy expires objects after 400 days, also below archive/: LAYOUT=archive would be "
        "refused"
    )
    backup(env, code=0)


def test_rules_that_cannot_be_read_stop_nothing_and_check_says_so(
    moto: MotoServer, data_dir: Path
) -> None:
    bucket = moto.endpoint().new_bucket("health-tracker-prometheus-backups")
    give_rules(bucket, ALL)
    denied = S3Bucket(moto.endpoint(moto.new_user(*statements("combined"))), bucket.name)
    with moto.enforcing_iam():
        env = environment(denied, data_dir)
        line = checked(env)
        backup(env, code=0)
    assert line is not None
    assert line["ok"]
    assert line["detail"].startswith("cannot read the lifecycle rules of s3://")
    assert "AccessDenied" in line["detail"]
    assert line["detail"].endswith("make sure that none expires objects below archive/")


def test_a_store_that_knows_no_rules_is_used_as_before(s3_bucket: S3Bucket, data_dir: Path) -> None:
    def refuse(request: Any) -> Any:
        return refusal(501, "NotImplemented") if "?lifecycle" in request.path else None

    with LimitedStore(s3_bucket.endpoint.url, refuse) as server:
        env = environment(s3_bucket, data_dir, AWS_ENDPOINT_URL=server.url)
        line = checked(env)
        backup(env, code=0)
    assert line is not None
    assert line["ok"]
    assert "NotImplemented" in line["detail"]


def test_the_policies_and_the_rules_of_this_project_work_with_the_archive(
    moto: MotoServer, data_dir: Path
) -> None:
    bucket = moto.endpoint().new_bucket("health-tracker-prometheus-backups")
    give_rules(bucket, *document("bucket/lifecycle.json")["Rules"])
    for allowed in (
        [*statements("combined"), *statements("lifecycle")],
        statements("writer"),
    ):
        user = S3Bucket(moto.endpoint(moto.new_user(*allowed)), bucket.name)
        with moto.enforcing_iam():
            line = checked(environment(user, data_dir))
        assert line is not None
        assert line["ok"]
        assert line["detail"] == "none expires objects below archive/"
