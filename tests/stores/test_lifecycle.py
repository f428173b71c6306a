"""Which lifecycle rules delete objects below a folder: decided, and read from real stores."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools.moto_server import MotoServer
from devtools.s3 import S3Bucket
from prometheus_backup.errors import RepositoryDenied, RepositoryUnavailable
from prometheus_backup.model import BLOCK_TAGS
from prometheus_backup.stores.base import ExpiringStore, ObjectStore
from prometheus_backup.stores.lifecycle import expiry_rules
from prometheus_backup.stores.local import LocalStore
from tests.support.s3 import open_s3

Rule = dict[str, Any]

FOLDER = "prometheus-snapshots/archive/"
OLD = {"Days": 30}
DATA = {"Key": "Content", "Value": "data"}
DAILY = {"Key": "Type", "Value": "daily"}


def rule(*, expiration: Rule = OLD, status: str = "Enabled", **more: Any) -> Rule:
    return {"ID": "one", "Status": status, "Expiration": expiration, **more}


def expires(*rules: Rule, folder: str = FOLDER) -> bool:
    return any(one.may_expire(folder, tags=BLOCK_TAGS) for one in expiry_rules(rules))


@pytest.mark.parametrize(
    "found",
    [
        rule(),
        rule(Filter={}),
        rule(Filter={"Prefix": ""}),
        rule(Filter={"Prefix": "prometheus-snapshots/"}),
        rule(Filter={"Prefix": "prom"}),
        rule(Filter={"Prefix": "prometheus-snapshots/archive"}),
        rule(Filter={"Prefix": FOLDER}),
        rule(Filter={"Prefix": f"{FOLDER}01JJ5W0B8ZC6X3M1S4T9Q2V7KD/"}),
        rule(Prefix=""),
        rule(Prefix="prometheus-snapshots/"),
        rule(Filter={"Tag": DATA}),
        rule(Filter={"And": {"Prefix": "prometheus-snapshots/", "Tags": [DATA]}}),
        rule(Filter={"ObjectSizeGreaterThan": 1 << 20}),
        rule(Filter={"ObjectSizeLessThan": 1 << 20}),
        rule(Filter={"And": {"ObjectSizeGreaterThan": 9, "ObjectSizeLessThan": 11}}),
        rule(expiration={"Date": datetime(2030, 1, 1, tzinfo=UTC)}),
        rule(Filter={}, Transitions=[{"Days": 3, "StorageClass": "GLACIER_IR"}]),
    ],
    ids=str,
)
def test_rule_that_deletes_archived_blocks_is_found(found: Rule) -> None:
    assert expires(found)
    assert expires(rule(status="Disabled"), found)
    assert not expires({**found, "Status": "Disabled"})


@pytest.mark.parametrize(
    "harmless",
    [
        rule(Filter={"Prefix": "prometheus-snapshots/backup-"}),
        rule(Filter={"Prefix": "prometheus-snapshots/archive-of-others/"}),
        rule(Filter={"Prefix": "/prometheus-snapshots/"}),
        rule(Filter={"Prefix": "logs/"}),
        rule(Prefix="logs/"),
        rule(Filter={"Tag": DAILY}),
        rule(Filter={"Tag": {"Key": "Content", "Value": "logs"}}),
        rule(Filter={"And": {"Prefix": "", "Tags": [DATA, DAILY]}}),
        rule(Filter={"ObjectSizeLessThan": 1}),
        rule(Filter={"And": {"ObjectSizeGreaterThan": 10, "ObjectSizeLessThan": 11}}),
        rule(expiration={"ExpiredObjectDeleteMarker": True}),
        {
            "Status": "Enabled",
            "Filter": {},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
            "Transitions": [{"Days": 35, "StorageClass": "GLACIER_IR"}],
        },
    ],
    ids=str,
)
def test_rule_that_leaves_archived_blocks_alone_is_not_found(harmless: Rule) -> None:
    assert not expires(harmless)


def test_rule_is_named_with_what_it_does() -> None:
    dated = rule(expiration={"Date": datetime(2030, 1, 1, tzinfo=UTC)})
    unnamed = {"Status": "Enabled", "Expiration": {"Days": 1}}
    assert [*map(str, expiry_rules([rule(), dated, unnamed]))] == [
        "rule one expires objects after 30 days",
        "rule one expires objects on 2030-01-01",
        "rule number 3 expires objects after 1 day",
    ]


# A naive reading of the rules, object by object

_TAGS = st.dictionaries(st.sampled_from(["Content", "Type"]), st.sampled_from(["data", "daily"]))
_PREFIXES = st.sampled_from(["", "p", "p/", "p/arch", "p/archive/", "p/archive/0", "q/", "p/b"])


@st.composite
def _rules(draw: st.DrawFn) -> Rule:
    tags = [{"Key": k, "Value": v} for k, v in draw(_TAGS).items()]
    parts: Rule = {"Prefix": draw(_PREFIXES)}
    if tags:
        parts["Tags"] = tags
    for name in ("ObjectSizeGreaterThan", "ObjectSizeLessThan"):
        if draw(st.booleans()):
            parts[name] = draw(st.integers(0, 5))
    if len(parts) > 1:
        chosen: Rule = {"Filter": {"And": parts}}
    else:
        chosen = draw(st.sampled_from([{"Filter": parts}, parts]))
    expiration = draw(st.sampled_from([{"Days": 1}, {"ExpiredObjectDeleteMarker": True}, {}]))
    return {"Status": draw(st.sampled_from(["Enabled", "Disabled"])), **chosen} | (
        {"Expiration": expiration} if expiration else {}
    )


def _deletes(rule: Rule, key: str, tags: Mapping[str, str], size: int) -> bool:
    chosen = rule.get("Filter", rule)
    chosen = chosen.get("And", chosen)
    return (
        rule["Status"] == "Enabled"
        and "Days" in rule.get("Expiration", {})
        and key.startswith(chosen["Prefix"])
        and all(tags.get(t["Key"]) == t["Value"] for t in chosen.get("Tags", []))
        and size > chosen.get("ObjectSizeGreaterThan", -1)
        and size < chosen.get("ObjectSizeLessThan", 1 << 60)
    )


@given(st.lists(_rules(), max_size=4))
def test_rules_are_found_exactly_if_an_object_can_exist_that_they_delete(rules: list[Rule]) -> None:
    deleted = any(
        _deletes(one, key, tags, size)
        for one in rules
        for key in ("p/archive/0", "p/archive/1/index", "p/archive/claims/x")
        for tags in ({}, BLOCK_TAGS)
        for size in range(1, 10)
    )
    assert expires(*rules, folder="p/archive/") is deleted


# Real stores


def _found(store: ObjectStore) -> list[str]:
    assert isinstance(store, ExpiringStore)
    return [*map(str, store.expiry_rules("archive", tags=BLOCK_TAGS))]


def test_rules_of_a_bucket_are_read_from_s3(moto_bucket: S3Bucket) -> None:
    store = open_s3(moto_bucket, prefix="p")
    assert _found(store) == []
    day = datetime(2030, 1, 1, tzinfo=UTC)
    rules: Any = [
        {"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 9}},
        {"ID": "old", "Status": "Enabled", "Prefix": "p/archive/", "Expiration": {"Date": day}},
        {"ID": "off", "Status": "Disabled", "Filter": {}, "Expiration": {"Days": 9}},
        {"ID": "ours", "Status": "Enabled", "Filter": {"Tag": DATA}, "Expiration": {"Days": 7}},
        {"ID": "others", "Status": "Enabled", "Filter": {"Prefix": "q/"}, "Expiration": OLD},
    ]
    moto_bucket.client.put_bucket_lifecycle_configuration(
        Bucket=moto_bucket.name, LifecycleConfiguration={"Rules": rules}
    )
    assert _found(store) == [
        "rule all expires objects after 9 days",
        "rule old expires objects on 2030-01-01",
        "rule ours expires objects after 7 days",
    ]


def test_rules_that_may_not_be_read_are_denied_with_the_action(moto: MotoServer) -> None:
    bucket = moto.endpoint().new_bucket()
    user = moto.new_user({"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"})
    store = open_s3(S3Bucket(moto.endpoint(user), bucket.name))
    with moto.enforcing_iam(), pytest.raises(RepositoryDenied) as caught:
        _found(store)
    assert "cannot read the lifecycle rules of s3://" in caught.value.message
    assert "s3:GetLifecycleConfiguration" in caught.value.hint


def test_a_store_without_readable_rules_says_so(store: ObjectStore) -> None:
    """Every kind of store: rules that are read and none, or a reason why they are not read."""
    if isinstance(store, LocalStore) or not isinstance(store, ExpiringStore):
        assert not isinstance(store, ExpiringStore)
    elif store.url.startswith("s3://"):
        assert _found(store) == []
    else:
        with pytest.raises(RepositoryUnavailable, match="reads those of S3 only"):
            _found(store)
