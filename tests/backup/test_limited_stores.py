"""Stores that lack a feature: `check` names the setting, and with it everything works."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.repository.layout import ARCHIVE
from tests.support.faulty_http import CutRequest, LoseAnswer
from tests.support.limited_store import (
    NO_CONDITIONS,
    NO_COPIES,
    NO_ENCRYPTION,
    NO_TAG_PERMISSION,
    NO_TAGS,
    LimitedStore,
    Refusal,
    full,
    no_other_class,
    object_lock,
    without_bulk_delete,
)
from tests.support.repositories import ManualClock, make_backup
from tests.support.runs import settings
from tests.support.s3 import PREFIX, open_s3
from tests.support.stored_backups import json_of, run_here

Lines = dict[str, dict[str, Any]]


@pytest.fixture
def store(s3_bucket: S3Bucket) -> Iterator[LimitedStore]:
    """A server in front of the bucket's that refuses nothing yet."""
    with LimitedStore(s3_bucket.endpoint.url) as server:
        yield server


def _environment(
    source: PrometheusServer, bucket: S3Bucket, store: LimitedStore, **more: str
) -> dict[str, str]:
    return settings(source, bucket, AWS_ENDPOINT_URL=store.url, SKIP_HEAD="true", **more)


def _failed(env: dict[str, str], *, code: int) -> Lines:
    document = json_of(run_here("check", "--json", env=env), code=code)
    return {line["subject"]: line for line in document["checks"] if not line["ok"]}


@pytest.mark.parametrize(
    ("refusal", "more", "subjects", "needed", "code"),
    [
        (NO_TAGS, {}, {"block files"}, {"S3_TAGS": "false"}, 2),
        (NO_TAG_PERMISSION, {}, {"block files"}, {"S3_TAGS": "false"}, 12),
        (NO_ENCRYPTION, {}, {"write"}, {"S3_SSE": "none"}, 2),
        (
            NO_CONDITIONS,
            {},
            {"conditional create"},
            {"S3_CONDITIONAL_WRITES": "false"},
            2,
        ),
        (object_lock, {}, {"write"}, {"S3_CHECKSUM": "crc64nvme"}, 2),
        (
            no_other_class,
            {"S3_STORAGE_CLASS": "STANDARD_IA"},
            {"block files"},
            {"S3_STORAGE_CLASS": "STANDARD"},
            2,
        ),
    ],
    ids=["tags", "permission to tag", "encryption", "conditions", "object lock", "class"],
)
def test_check_names_the_setting_with_which_a_backup_then_succeeds(
    source: PrometheusServer,
    s3_bucket: S3Bucket,
    store: LimitedStore,
    refusal: Refusal,
    more: dict[str, str],
    subjects: set[str],
    needed: dict[str, str],
    code: int,
) -> None:
    store.refusals = [refusal]
    lines = _failed(_environment(source, s3_bucket, store, **more), code=code)
    assert set(lines) == {f"repository: {subject}" for subject in subjects}
    (line,) = lines.values()
    for name, value in needed.items():
        assert f"set {name}={value}:" in line["fix"]
    assert s3_bucket.keys() == []

    env = _environment(source, s3_bucket, store, **more | needed)
    assert _failed(env, code=0) == {}
    backup = json_of(run_here("backup", "--json", env=env), code=0)
    assert backup["outcome"] == "done"


def test_check_finds_all_settings_that_a_store_needs(
    source: PrometheusServer, s3_bucket: S3Bucket, store: LimitedStore
) -> None:
    store.refusals = [NO_TAGS, NO_ENCRYPTION, NO_CONDITIONS, no_other_class]
    env = _environment(source, s3_bucket, store, S3_STORAGE_CLASS="STANDARD_IA")

    fixes = {subject: line["fix"] for subject, line in _failed(env, code=2).items()}

    assert "S3_SSE=none" in fixes["repository: write"]
    assert "S3_CONDITIONAL_WRITES=false" in fixes["repository: conditional create"]
    assert "S3_TAGS=false and S3_STORAGE_CLASS=STANDARD" in fixes["repository: block files"]
    assert s3_bucket.keys() == []


def test_a_store_that_cannot_copy_gets_every_file_again_and_check_says_so(
    source: PrometheusServer, s3_bucket: S3Bucket, store: LimitedStore
) -> None:
    store.refusals = [NO_COPIES]
    env = _environment(source, s3_bucket, store)

    lines = _failed(env, code=3)

    assert set(lines) == {"repository: copy"}
    assert "send every file again" in lines["repository: copy"]["fix"]


def _two_backups(bucket: S3Bucket) -> tuple[str, str]:
    """Make a backup of nine days ago and one of today; return their ids."""
    now = datetime.now(UTC)
    store, clock = open_s3(bucket), ManualClock(now)
    old, new = (make_backup(store, clock, at=now - timedelta(days=days)) for days in (9, 0))
    return old, new


ONE_DAY = {"RETENTION_DAILY": "1", "RETENTION_MONTHLY": "0", "RETENTION_YEARLY": "0"}


@pytest.mark.parametrize("status", [501, 400, 403])
def test_retention_deletes_one_by_one_where_the_store_refuses_to_delete_in_bulk(
    source: PrometheusServer, s3_bucket: S3Bucket, store: LimitedStore, status: int
) -> None:
    store.refusals = [without_bulk_delete(status)]
    env = _environment(source, s3_bucket, store)
    document = json_of(run_here("check", "--json", env=env), code=0)
    (delete,) = (c for c in document["checks"] if c["subject"] == "repository: delete")
    assert "one by one" in delete["detail"]
    assert s3_bucket.keys() == []

    old, new = _two_backups(s3_bucket)
    pruned = json_of(run_here("prune", "--json", env=env | ONE_DAY), code=0)
    assert pruned["deleted"] == [old]
    assert {key.split("/")[1] for key in s3_bucket.keys(PREFIX)} == {ARCHIVE, new}


def test_a_backup_that_a_store_refuses_ends_with_the_setting_in_the_hint(
    source: PrometheusServer, s3_bucket: S3Bucket, store: LimitedStore
) -> None:
    store.refusals = [NO_TAGS]
    done = json_of(run_here("backup", "--json", env=_environment(source, s3_bucket, store)), code=2)
    assert "x-amz-tagging" in done["error"]
    assert "S3_TAGS=false" in done["hint"]


def test_a_store_over_its_quota_says_so_and_can_be_pruned(
    source: PrometheusServer, s3_bucket: S3Bucket, store: LimitedStore
) -> None:
    old, new = _two_backups(s3_bucket)
    store.refusals = [full]
    env = _environment(source, s3_bucket, store)

    failed = json_of(run_here("backup", "--json", env=env), code=13)
    assert "the store is full, or its quota is used up" in failed["error"]
    assert "prometheus-backup prune" in failed["hint"]

    pruned = json_of(run_here("prune", "--json", env=env | ONE_DAY), code=0)
    assert pruned["deleted"] == [old]
    assert {key.split("/")[1] for key in s3_bucket.keys(PREFIX)} == {new}, (
        "the full store takes no catalogue"
    )


def test_a_backup_survives_broken_connections_when_it_creates_its_claim_and_its_manifest(
    source: PrometheusServer, s3_bucket: S3Bucket, store: LimitedStore
) -> None:
    store.faults = [
        CutRequest("PUT", "incomplete.json"),
        LoseAnswer("PUT", "incomplete.json"),
        CutRequest("PUT", "metadata.json"),
        LoseAnswer("PUT", "metadata.json"),
    ]
    env = _environment(source, s3_bucket, store)

    backup = json_of(run_here("backup", "--json", env=env), code=0)

    assert store.faults == []
    assert backup["outcome"] == "done"
    listed = json_of(run_here("list", "--json", env=env))
    assert [b["backup_id"] for b in listed["backups"]] == [backup["backup_id"]]
