"""The cost of a month, compared with figures that are calculated by hand."""

from datetime import timedelta

import pytest

from prometheus_backup.cost.compaction import Compactor
from prometheus_backup.cost.lifetimes import Kept, steady
from prometheus_backup.cost.model import (
    GIB,
    PART,
    STRATEGIES,
    Month,
    Strategy,
    Usage,
    month,
    requests_of,
)
from prometheus_backup.cost.prices import PRICES, SMALL, Price, override_prices
from prometheus_backup.cost.tsdb import Tsdb, Workload, expected_workload
from prometheus_backup.errors import UsageError
from prometheus_backup.model import Layout
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.classes import ARCHIVE_CLASSES, STORAGE_CLASSES
from prometheus_backup.stores.objectstore import PART_SIZE
from tests.support.aws_policies import document

NIGHTS = 365 / 12
TEN_DAYS = Policy(10, 0, 0)
BACKUP = Workload(100 * GIB, blocks=20, files=260, upload=10 * GIB, new_blocks=5)
FIFTEEN_DAYS = Compactor.of(timedelta(days=15))


def _kept(
    policy: Policy,
    *,
    load: Workload = BACKUP,
    layout: Layout = Layout.FULL,
    noncurrent_days: int = 0,
) -> Kept:
    return steady(
        policy,
        layout=layout,
        tsdb=Tsdb(load.size, FIFTEEN_DAYS),
        load=load,
        noncurrent_days=noncurrent_days,
    )


def _month(
    *stages: tuple[int, str],
    policy: Policy = TEN_DAYS,
    load: Workload = BACKUP,
    usage: Usage | None = None,
    layout: Layout = Layout.FULL,
    **changes: dict[str, float],
) -> Month:
    usage = usage or Usage()
    prices = override_prices(changes)
    kept = _kept(policy, load=load, layout=layout, noncurrent_days=usage.noncurrent_days)
    return month(Strategy(stages), workload=load, kept=kept, usage=usage, prices=prices)


# How long backups are kept


@pytest.mark.parametrize(
    ("policy", "average", "oldest"),
    [
        (Policy(10, 0, 0), 10, 10),
        (Policy(1, 0, 0), 1, 1),
        # On twelve days of the year the newest backup is also one of the monthly ones.
        (Policy(1, 12, 0), 12 + 353 / 365, 365),
        (Policy(0, 0, 3), 3 + 364 / 365, 1095),
    ],
)
def test_backups_are_kept_as_retention_decides(policy: Policy, average: float, oldest: int) -> None:
    kept = _kept(policy)
    assert kept.backups == pytest.approx(average)
    assert kept.oldest == ((oldest, 1.0),)


def test_deleted_backups_are_purged_after_the_noncurrent_days() -> None:
    kept = _kept(TEN_DAYS, noncurrent_days=14)
    assert kept.backups == pytest.approx(10)
    assert kept.stored == pytest.approx(1000 * GIB)
    assert {life.purged - life.deleted for life in kept.lifetimes} == {14}


@pytest.mark.parametrize(
    "policy",
    [
        Policy(36500, 0, 0),
        Policy(0, 241, 0),
        Policy(0, 0, 21),
        Policy(1, 0, 0, history=timedelta(days=3000)),
        Policy(1, 0, 0, all_for=timedelta(days=3000)),
    ],
)
def test_a_policy_that_takes_too_long_to_simulate_is_refused(policy: Policy) -> None:
    with pytest.raises(UsageError, match="for too long"):
        _kept(policy)


# Storage


def test_storage_is_the_sum_of_all_kept_backups() -> None:
    assert _month((0, "STANDARD")).storage == pytest.approx(10 * 100 * 0.023)


def test_noncurrent_versions_are_billed() -> None:
    kept = _month((0, "STANDARD"), usage=Usage(noncurrent_days=14))
    assert kept.storage == pytest.approx(24 * 100 * 0.023)


def test_a_rule_does_not_move_deleted_versions() -> None:
    usage = Usage(noncurrent_days=14)
    moved = _month((0, "STANDARD"), (12, "GLACIER_IR"), usage=usage)
    assert moved.storage == pytest.approx(_month((0, "STANDARD"), usage=usage).storage)
    assert moved.early_deletion == 0


def test_time_as_a_version_counts_for_the_minimum_duration() -> None:
    kept = _month((0, "GLACIER_IR"), usage=Usage(noncurrent_days=14))
    assert kept.early_deletion == pytest.approx((90 - 24) * 100 * 0.004)


def test_early_deletion_is_billed_up_to_the_minimum_duration() -> None:
    month = _month((0, "GLACIER_IR"))
    whole = 90 * 100 * 0.004  # as if each backup had been kept for 90 days instead of 10
    assert month.storage + month.early_deletion == pytest.approx(whole, rel=1e-3)
    assert month.early_deletion == pytest.approx(80 * 100 * 0.004)


def test_a_minimum_duration_counts_from_the_transition() -> None:
    late = _month((0, "STANDARD"), (5, "STANDARD_IA"))
    assert late.early_deletion == pytest.approx((30 - 5) * 100 * 0.0125)
    assert late.storage == pytest.approx((5 * 0.023 + 5 * 0.0125) * 100)


def test_a_rule_acts_after_retention_of_the_same_day() -> None:
    assert _month((0, "STANDARD"), (10, "GLACIER_IR")).early_deletion == 0


def test_small_files_are_billed_at_the_minimum_size_of_their_upload_class() -> None:
    many = Workload(100 * GIB, blocks=10_000, files=30_000, upload=GIB)
    direct = _month((0, "STANDARD_IA"), load=many).storage
    assert direct == pytest.approx(10 * 0.0125 * (100 + 20_000 * SMALL / GIB))
    moved = _month((0, "STANDARD"), (1, "STANDARD_IA"), load=many).storage
    assert moved == pytest.approx(
        (1 * 0.023 + 9 * 0.0125) * 100
    )  # lifecycle rules do not move them


def test_an_archive_class_bills_forty_kilobytes_more_per_object() -> None:
    load = Workload(GIB, blocks=0, files=1000, upload=0)
    assert _month((0, "GLACIER"), load=load).storage == pytest.approx(
        10 * 0.0036 * (1 + 1000 * 40 * 1024 / GIB)
    )


def test_intelligent_tiering_is_cheaper_for_objects_that_are_not_read() -> None:
    policy = Policy(100, 0, 0)
    still = _month((0, "INTELLIGENT_TIERING"), policy=policy)
    bytes_ = (30 * 0.023 + 60 * 0.0125 + 10 * 0.004) * 100
    assert still.storage == pytest.approx(bytes_ + 100 * 220 * 0.0025 / 1000)
    read = _month((0, "INTELLIGENT_TIERING"), policy=policy, usage=Usage(verify_days=14))
    assert read.storage == pytest.approx(100 * 100 * 0.023 + 100 * 220 * 0.0025 / 1000)


# Requests and retrieval


def test_nightly_copies_are_billed_as_reads_of_their_sources() -> None:
    assert _month((0, "STANDARD_IA")).retrieval == pytest.approx(NIGHTS * 100 * 0.01)
    assert _month((0, "STANDARD"), (5, "STANDARD_IA")).retrieval == 0


def test_nothing_is_copied_from_an_archive_class_so_each_night_uploads_everything() -> None:
    archive, instant = _month((0, "GLACIER")), _month((0, "GLACIER_IR"))
    assert archive.retrieval == 0
    parts = 100 * GIB / PART
    assert archive.requests > NIGHTS * parts * 0.005 / 1000
    assert instant.requests < NIGHTS * parts * 0.02 / 1000


def test_verification_is_billed_in_classes_that_bill_reads() -> None:
    usage = Usage(verify_days=10)
    usual, verified = _month((0, "STANDARD_IA")), _month((0, "STANDARD_IA"), usage=usage)
    assert verified.retrieval - usual.retrieval == pytest.approx(NIGHTS / 10 * 10 * 100 * 0.01)
    assert _month((0, "STANDARD"), usage=usage).retrieval == 0
    assert _month((0, "GLACIER"), usage=usage).retrieval == 0


def test_a_transition_is_one_request_per_large_file() -> None:
    requests = _month((0, "STANDARD"), (5, "GLACIER_IR")).requests
    assert requests - _month((0, "STANDARD")).requests == pytest.approx(
        NIGHTS * 220 * 0.02 / 1000, rel=1e-6
    )


def test_backups_deleted_before_a_transition_are_not_moved() -> None:
    assert _month((0, "STANDARD"), (10, "GLACIER_IR")).requests == pytest.approx(
        _month((0, "STANDARD")).requests
    )


# A restore


def test_restoring_the_newest_is_cheaper_than_one_that_was_moved() -> None:
    month = _month((0, "STANDARD"), (5, "GLACIER_IR"))
    assert month.restore_newest == pytest.approx(260 * 0.0004 / 1000)
    assert month.restore_oldest == pytest.approx(100 * 0.03 + 260 * 0.01 / 1000)
    assert month.thaw_hours == 0


def test_a_restore_from_an_archive_class_reports_how_long_it_waits() -> None:
    month = _month((0, "STANDARD"), (5, "DEEP_ARCHIVE"))
    assert month.thaw_hours == PRICES["DEEP_ARCHIVE"].thaw_hours > 0
    assert month.restore_oldest == pytest.approx(100 * 0.02 + 260 * (0.0004 + 0.10) / 1000)


def test_empty_backups_cost_nothing() -> None:
    empty = Workload(0, 0, 0, 0)
    month = _month((0, "STANDARD"), load=empty)
    assert (month.storage, month.early_deletion, month.retrieval) == (0, 0, 0)


# Prices


def test_every_storage_class_has_a_price() -> None:
    assert set(PRICES) == set(STORAGE_CLASSES) - {"REDUCED_REDUNDANCY"}
    assert {name for name, price in PRICES.items() if not price.instant} == set(ARCHIVE_CLASSES)


def test_the_part_size_is_that_of_uploads() -> None:
    assert PART == PART_SIZE


def test_the_shipped_lifecycle_rule_is_one_of_the_strategies() -> None:
    (rule,) = [r for r in document("bucket/lifecycle.json")["Rules"] if "Transitions" in r]
    moves = [(t["Days"], t["StorageClass"]) for t in rule["Transitions"]]
    assert Strategy(((0, "STANDARD"), *moves)) in STRATEGIES


def test_prices_can_be_replaced_one_by_one() -> None:
    cheaper = _month((0, "STANDARD"), STANDARD={"gb_month": 0.01})
    assert cheaper.storage == pytest.approx(10 * 100 * 0.01)
    assert override_prices({"GLACIER": {"thaw_hours": 1}})["GLACIER"].thaw_hours == 1
    assert isinstance(override_prices({})["STANDARD"], Price)


@pytest.mark.parametrize(
    "changes",
    [
        {"GOLD": {"gb_month": 1.0}},
        {"STANDARD": {"gb_mont": 1.0}},
        {"STANDARD": {"gb_month": -1.0}},
        {"STANDARD": {"gb_month": "1"}},
        {"STANDARD": {"gb_month": True}},
        {"STANDARD": {"untouched": 1}},
    ],
)
def test_invalid_prices_are_refused(changes: dict[str, dict[str, float]]) -> None:
    with pytest.raises(UsageError, match="cannot use the prices"):
        override_prices(changes)


# The expected workload of a TSDB of a given size


@pytest.mark.parametrize(
    ("days", "share", "blocks"),
    [
        # Hours of new blocks and of a snapshot, and half an hour more for the index of each block.
        (7, (32 + 8 / 2) / (170 + 31 / 2), 31),
        (15, (38 + 6.33 / 2) / (368 + 24.7 / 2), 25),
    ],
)
def test_a_night_uploads_what_the_compactor_leaves(days: int, share: float, blocks: int) -> None:
    load = expected_workload(100 * GIB, Compactor.of(timedelta(days=days)))
    assert load.upload == pytest.approx(share * 100 * GIB, rel=0.01)
    assert load.blocks == blocks
    assert load.files == blocks * 3 + 180  # segments of half a gibibyte, a tenth is index


def test_a_longer_retention_has_less_that_is_new_each_night() -> None:
    shares = [
        expected_workload(GIB, Compactor.of(timedelta(days=d))).upload for d in (2, 7, 15, 30, 90)
    ]
    assert shares == sorted(shares, reverse=True)


def test_lifetimes_cover_the_last_year() -> None:
    kept = _kept(TEN_DAYS)
    assert kept.end - kept.begin == 365


# The archive


def test_an_archive_stores_each_block_once() -> None:
    kept = _kept(Policy(30, 0, 0), layout=Layout.ARCHIVE)
    whole = _kept(Policy(30, 0, 0))
    assert kept.backups == whole.backups == 30
    assert 0.12 < kept.stored / whole.stored < 0.15
    month = _month((0, "STANDARD"), policy=Policy(30, 0, 0), layout=Layout.ARCHIVE)
    assert month.storage == pytest.approx(kept.stored / GIB * 0.023)


def test_a_night_in_the_archive_reads_back_only_what_is_new() -> None:
    archive = _month((0, "STANDARD_IA"), layout=Layout.ARCHIVE)
    assert archive.retrieval == pytest.approx(NIGHTS * 10 * 0.01)


def test_an_unchanged_block_costs_no_request() -> None:
    kept, few = _kept(TEN_DAYS, layout=Layout.ARCHIVE), Workload(100 * GIB, 20, 260, 0)
    assert requests_of(few, kept).data == 0
    many = Workload(100 * GIB, blocks=2000, files=26_000, upload=0)
    assert requests_of(many, kept) == requests_of(few, kept)
    assert requests_of(many, _kept(TEN_DAYS)).total > 26_000


def test_short_lived_blocks_are_billed_for_the_minimum_duration() -> None:
    direct = _month((0, "GLACIER_IR"), layout=Layout.ARCHIVE)
    # No block lives for 90 days, and each night adds new ones.
    assert direct.storage + direct.early_deletion == pytest.approx(90 * 10.8 * 0.004, rel=0.01)
    moved = _month((0, "STANDARD"), (35, "GLACIER_IR"), layout=Layout.ARCHIVE)
    assert moved.early_deletion == 0


def test_a_block_is_verified_once_for_all_backups_that_name_it() -> None:
    usage, layout = Usage(verify_days=10), Layout.ARCHIVE
    read = _month((0, "STANDARD_IA"), usage=usage, layout=layout).retrieval
    read -= _month((0, "STANDARD_IA"), layout=layout).retrieval
    stored = _kept(TEN_DAYS, layout=layout).stored
    assert read == pytest.approx(NIGHTS / 10 * stored / GIB * 0.01)


def test_deleted_blocks_are_billed_as_versions() -> None:
    usage = Usage(noncurrent_days=14)
    plain, versioned = (
        _month((0, "STANDARD"), layout=Layout.ARCHIVE, usage=u).storage for u in (Usage(), usage)
    )
    # What a night adds is deleted sooner or later, and then billed for 14 days.
    assert versioned - plain == pytest.approx(14 * 10.8 * 0.023, rel=0.05)


def test_the_newest_archived_backup_has_blocks_that_were_moved() -> None:
    load = expected_workload(100 * GIB, Compactor.of(timedelta(days=90)))
    kept = steady(
        TEN_DAYS,
        layout=Layout.ARCHIVE,
        tsdb=Tsdb(load.size, Compactor.of(timedelta(days=90))),
        load=load,
    )
    moved = Strategy(((0, "STANDARD"), (35, "GLACIER_IR")))
    cost = month(moved, workload=load, kept=kept, usage=Usage(), prices=PRICES)
    assert cost.restore_newest == pytest.approx(55 / 90 * 100 * 0.03, rel=0.1)
