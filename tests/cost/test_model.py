"""What a month costs: by figures that can be worked out by hand."""

from datetime import timedelta

import pytest

from prometheus_backup.cost.lifetimes import (
    KeptBackups,
    Workload,
    expected_workload,
    simulate_lifetimes,
)
from prometheus_backup.cost.model import GIB, PART, STRATEGIES, Month, Strategy, Usage, month
from prometheus_backup.cost.prices import PRICES, SMALL, Price, override_prices
from prometheus_backup.errors import UsageError
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.classes import ARCHIVE_CLASSES, STORAGE_CLASSES
from prometheus_backup.stores.objectstore import PART_SIZE
from tests.support.aws_policies import document

NIGHTS = 365 / 12
TEN_DAYS = Policy(10, 0, 0)
BACKUP = Workload(100 * GIB, blocks=20, files=260, upload=10 * GIB)


def _month(
    *stages: tuple[int, str],
    policy: Policy = TEN_DAYS,
    load: Workload = BACKUP,
    usage: Usage | None = None,
    **changes: dict[str, float],
) -> Month:
    usage = usage or Usage()
    prices = override_prices(changes)
    kept = simulate_lifetimes(policy, noncurrent_days=usage.noncurrent_days)
    return month(Strategy(stages), workload=load, kept=kept, usage=usage, prices=prices)


# How long backups stay


@pytest.mark.parametrize(
    ("policy", "average", "oldest"),
    [
        (Policy(10, 0, 0), 10, 10),
        (Policy(1, 0, 0), 1, 1),
        # The newest is the one of a 1st on twelve days of the year.
        (Policy(1, 12, 0), 12 + 353 / 365, 365),
        (Policy(0, 0, 3), 3 + 364 / 365, 1095),
    ],
)
def test_backups_are_kept_as_retention_decides(policy: Policy, average: float, oldest: int) -> None:
    kept = simulate_lifetimes(policy)
    assert kept.average == pytest.approx(average)
    assert kept.oldest_days == oldest


def test_what_was_deleted_is_gone_after_the_noncurrent_days() -> None:
    kept = simulate_lifetimes(TEN_DAYS, noncurrent_days=14)
    assert kept.average == pytest.approx(10)
    assert {life.purged - life.deleted for life in kept.lifetimes} == {14}


@pytest.mark.parametrize("policy", [Policy(36500, 0, 0), Policy(0, 241, 0), Policy(0, 0, 21)])
def test_a_policy_that_would_take_too_long_to_settle_is_refused(policy: Policy) -> None:
    with pytest.raises(UsageError, match="for too long"):
        simulate_lifetimes(policy)


# Storage


def test_storage_is_what_all_kept_backups_have_together() -> None:
    assert _month((0, "STANDARD")).storage == pytest.approx(10 * 100 * 0.023)


def test_versions_that_are_kept_are_paid_for() -> None:
    kept = _month((0, "STANDARD"), usage=Usage(noncurrent_days=14))
    assert kept.storage == pytest.approx(24 * 100 * 0.023)


def test_a_rule_moves_no_version_that_was_deleted() -> None:
    usage = Usage(noncurrent_days=14)
    moved = _month((0, "STANDARD"), (12, "GLACIER_IR"), usage=usage)
    assert moved.storage == pytest.approx(_month((0, "STANDARD"), usage=usage).storage)
    assert moved.early_deletion == 0


def test_time_as_a_version_counts_for_the_minimum_duration() -> None:
    kept = _month((0, "GLACIER_IR"), usage=Usage(noncurrent_days=14))
    assert kept.early_deletion == pytest.approx((90 - 24) * 100 * 0.004)


def test_early_deletion_is_billed_up_to_the_minimum_duration() -> None:
    month = _month((0, "GLACIER_IR"))
    whole = 90 * 100 * 0.004  # as if each backup of 10 days had been there for 90
    assert month.storage + month.early_deletion == pytest.approx(whole, rel=1e-3)
    assert month.early_deletion == pytest.approx(80 * 100 * 0.004)


def test_a_minimum_duration_counts_from_the_transition() -> None:
    late = _month((0, "STANDARD"), (5, "STANDARD_IA"))
    assert late.early_deletion == pytest.approx((30 - 5) * 100 * 0.0125)
    assert late.storage == pytest.approx((5 * 0.023 + 5 * 0.0125) * 100)


def test_a_rule_acts_after_retention_of_the_same_day() -> None:
    assert _month((0, "STANDARD"), (10, "GLACIER_IR")).early_deletion == 0


def test_small_files_are_billed_for_more_where_they_are_uploaded_to_such_a_class() -> None:
    many = Workload(100 * GIB, blocks=10_000, files=30_000, upload=GIB)
    direct = _month((0, "STANDARD_IA"), load=many).storage
    assert direct == pytest.approx(10 * 0.0125 * (100 + 20_000 * SMALL / GIB))
    moved = _month((0, "STANDARD"), (1, "STANDARD_IA"), load=many).storage
    assert moved == pytest.approx((1 * 0.023 + 9 * 0.0125) * 100)  # lifecycle leaves them alone


def test_an_archive_bills_forty_kilobytes_more_for_each_object() -> None:
    load = Workload(GIB, blocks=0, files=1000, upload=0)
    assert _month((0, "GLACIER"), load=load).storage == pytest.approx(
        10 * 0.0036 * (1 + 1000 * 40 * 1024 / GIB)
    )


def test_intelligent_tiering_costs_less_what_is_not_read() -> None:
    policy = Policy(100, 0, 0)
    still = _month((0, "INTELLIGENT_TIERING"), policy=policy)
    bytes_ = (30 * 0.023 + 60 * 0.0125 + 10 * 0.004) * 100
    assert still.storage == pytest.approx(bytes_ + 100 * 220 * 0.0025 / 1000)
    read = _month((0, "INTELLIGENT_TIERING"), policy=policy, usage=Usage(verify_days=14))
    assert read.storage == pytest.approx(100 * 100 * 0.023 + 100 * 220 * 0.0025 / 1000)


# Requests and retrieval


def test_each_night_copies_all_and_the_source_is_billed_as_read() -> None:
    assert _month((0, "STANDARD_IA")).retrieval == pytest.approx(NIGHTS * 100 * 0.01)
    assert _month((0, "STANDARD"), (5, "STANDARD_IA")).retrieval == 0


def test_an_archive_is_neither_copied_from_nor_read_so_each_night_sends_all() -> None:
    archive, instant = _month((0, "GLACIER")), _month((0, "GLACIER_IR"))
    assert archive.retrieval == 0
    parts = 100 * GIB / PART
    assert archive.requests > NIGHTS * parts * 0.005 / 1000
    assert instant.requests < NIGHTS * parts * 0.02 / 1000


def test_verification_is_billed_where_reading_is() -> None:
    usage = Usage(verify_days=10)
    usual, verified = _month((0, "STANDARD_IA")), _month((0, "STANDARD_IA"), usage=usage)
    assert verified.retrieval - usual.retrieval == pytest.approx(NIGHTS / 10 * 10 * 100 * 0.01)
    assert _month((0, "STANDARD"), usage=usage).retrieval == 0
    assert _month((0, "GLACIER"), usage=usage).retrieval == 0


def test_a_transition_is_a_request_for_each_large_file() -> None:
    requests = _month((0, "STANDARD"), (5, "GLACIER_IR")).requests
    assert requests - _month((0, "STANDARD")).requests == pytest.approx(
        NIGHTS * 220 * 0.02 / 1000, rel=1e-6
    )


def test_nothing_moves_that_is_gone_before() -> None:
    assert _month((0, "STANDARD"), (10, "GLACIER_IR")).requests == pytest.approx(
        _month((0, "STANDARD")).requests
    )


# A restore


def test_a_restore_of_the_newest_costs_less_than_of_one_that_moved() -> None:
    month = _month((0, "STANDARD"), (5, "GLACIER_IR"))
    assert month.restore_newest == pytest.approx(260 * 0.0004 / 1000)
    assert month.restore_oldest == pytest.approx(100 * 0.03 + 260 * 0.01 / 1000)
    assert month.thaw_hours == 0


def test_a_restore_from_an_archive_waits_and_says_so() -> None:
    month = _month((0, "STANDARD"), (5, "DEEP_ARCHIVE"))
    assert month.thaw_hours == PRICES["DEEP_ARCHIVE"].thaw_hours > 0
    assert month.restore_oldest == pytest.approx(100 * 0.02 + 260 * (0.0004 + 0.10) / 1000)


def test_nothing_costs_nothing() -> None:
    empty = Workload(0, 0, 0, 0)
    month = _month((0, "STANDARD"), load=empty)
    assert (month.storage, month.early_deletion, month.retrieval) == (0, 0, 0)


# Prices


def test_every_class_that_can_be_chosen_has_a_price() -> None:
    assert set(PRICES) == set(STORAGE_CLASSES) - {"REDUCED_REDUNDANCY"}
    assert {name for name, price in PRICES.items() if not price.instant} == set(ARCHIVE_CLASSES)


def test_the_part_is_that_of_uploads() -> None:
    assert PART == PART_SIZE


def test_the_lifecycle_of_infrastructure_is_among_the_strategies() -> None:
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
def test_prices_that_are_none_are_refused(changes: dict[str, dict[str, float]]) -> None:
    with pytest.raises(UsageError, match="cannot use the prices"):
        override_prices(changes)


# What a TSDB of a size is expected to be


@pytest.mark.parametrize(
    ("days", "share", "blocks"),
    [
        (1, 26 / 170, 29),
        (7, 26 / 170, 29),
        (15, 32 / 368, 22),
        (90, 62 / 2240, 17),
        (900, 79 / 9002, 23),
    ],
)
def test_a_night_sends_what_the_compactor_leaves(days: int, share: float, blocks: int) -> None:
    load = expected_workload(100 * GIB, timedelta(days=days))
    assert load.upload == pytest.approx(share * 100 * GIB, rel=1e-6)
    assert load.blocks == blocks
    assert load.files == blocks * 3 + 180  # segments of half a gibibyte, a tenth is index


def test_between_two_known_retentions_it_lies_between() -> None:
    shares = [expected_workload(GIB, timedelta(days=d)).upload for d in (15, 20, 30)]
    assert shares[0] > shares[1] > shares[2]


def test_lives_of_kept_are_those_of_the_last_year() -> None:
    kept = simulate_lifetimes(TEN_DAYS)
    assert isinstance(kept, KeptBackups)
    assert kept.end - kept.begin == 365
