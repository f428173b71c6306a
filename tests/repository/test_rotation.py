"""Properties of rotations: every file is in one part, every part gets due, no pass is early."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prometheus_backup.model import Level, Subset, Verdict
from prometheus_backup.repository.rotation import advance, assign, due, last_read
from prometheus_backup.repository.verification import Rotation, RotationPart, Verification
from tests.support.repositories import NOON, verification_of

BACKUP = "backup-20250301-120000"
_SIZES = st.dictionaries(st.text(min_size=1, max_size=6), st.integers(0, 2**40), max_size=60)
_PARTS = st.integers(1, 40)


@given(_SIZES, _PARTS, st.text(max_size=9))
def test_every_file_is_in_exactly_one_part(sizes: dict[str, int], parts: int, seed: str) -> None:
    assigned = assign(sizes, parts, seed=seed)

    assert assigned.keys() == sizes.keys()
    assert all(1 <= part <= parts for part in assigned.values())


@given(_SIZES, _PARTS, st.text(max_size=9))
def test_no_part_exceeds_the_average_by_more_than_one_file(
    sizes: dict[str, int], parts: int, seed: str
) -> None:
    assigned = assign(sizes, parts, seed=seed)

    loads = [
        sum(sizes[n] for n, p in assigned.items() if p == part) for part in range(1, parts + 1)
    ]
    average, largest = sum(sizes.values()) / parts, max(sizes.values(), default=0)
    assert max(loads) <= average + largest + len(sizes)


@given(_SIZES, _PARTS, st.randoms(use_true_random=False))
def test_the_order_of_files_does_not_matter(
    sizes: dict[str, int], parts: int, random: object
) -> None:
    names = list(sizes)
    random.shuffle(names)  # type: ignore[attr-defined]  # hypothesis' Random is not typed

    shuffled = {name: sizes[name] for name in names}
    assert assign(shuffled, parts, seed=BACKUP) == assign(sizes, parts, seed=BACKUP)


def test_equal_files_are_spread_evenly_also_when_they_are_empty() -> None:
    for size in (0, 512 * 2**20):
        assigned = assign({f"{n:03}": size for n in range(70)}, 7, seed=BACKUP)
        assert [list(assigned.values()).count(part) for part in range(1, 8)] == [10] * 7


def test_the_large_files_of_many_backups_are_in_different_parts() -> None:
    sizes = {"chunks/000001": 2**29, "index": 2**20, "meta.json": 300}
    days = [f"backup-202503{day:02}-020000" for day in range(1, 29)]

    parts = [assign(sizes, 7, seed=day)["chunks/000001"] for day in days]

    assert set(parts) == set(range(1, 8))


def result(part: int, parts: int, verdict: Verdict = Verdict.PASS) -> Verification:
    """Return a result of a part."""
    return verification_of(BACKUP, verdict, part=RotationPart(part=part, parts=parts))


def rotate(
    rotation: Rotation | None, verdicts: list[Verdict], parts: int, *, day: int = 0
) -> tuple[list[int], Rotation | None]:
    """Verify the due part once a day with these verdicts; return the parts and the rotation."""
    seen = []
    for number, verdict in enumerate(verdicts, start=day):
        part = due(rotation, Subset(None, parts))
        seen.append(part.part)
        began = NOON + timedelta(days=number)
        rotation = advance(rotation, result(part.part, parts, verdict), started_at=began)
    return seen, rotation


@given(st.integers(1, 12), st.integers(1, 3))
def test_as_many_runs_as_parts_verify_every_part_once(parts: int, rounds: int) -> None:
    seen, rotation = rotate(None, [Verdict.PASS] * parts * rounds, parts)

    assert seen == [*range(1, parts + 1)] * rounds
    assert rotation is not None
    assert rotation.passed == parts
    # The oldest result of the last round.
    assert rotation.passed_at == NOON + timedelta(days=parts * (rounds - 1))


@given(st.integers(2, 12))
def test_all_parts_but_one_are_not_a_pass(parts: int) -> None:
    _, rotation = rotate(None, [Verdict.PASS] * (parts - 1), parts)

    assert rotation is not None
    assert (rotation.passed, rotation.passed_at) == (parts - 1, None)


@settings(deadline=None)
@given(st.data(), st.integers(1, 9))
def test_a_pass_always_means_that_every_part_has_passed_since(
    data: st.DataObject, parts: int
) -> None:
    """Compare with a model that remembers the last result of each part."""
    results = data.draw(
        st.lists(st.tuples(st.integers(1, parts), st.sampled_from(Verdict)), max_size=4 * parts)
    )
    rotation, before, last = None, None, {}
    for day, (part, verdict) in enumerate(results):
        began = NOON + timedelta(days=day)
        rotation = advance(rotation, result(part, parts, verdict), started_at=began)
        last[part] = (began, verdict)
        whole = len(last) == parts and all(v is Verdict.PASS for _, v in last.values())
        expected = min(began for began, _ in last.values()) if whole else before
        assert rotation.passed_at == expected
        before = expected


def test_a_failed_part_does_not_delay_the_others() -> None:
    verdicts = [Verdict.PASS, Verdict.PASS, Verdict.FAIL, *[Verdict.PASS] * 4]

    seen, rotation = rotate(None, verdicts, 7)

    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert rotation is not None
    assert (rotation.passed, rotation.passed_at) == (6, None)
    again, rotation = rotate(rotation, [Verdict.PASS] * 3, 7, day=7)
    assert again == [1, 2, 3]
    assert rotation is not None
    assert rotation.passed_at == NOON + timedelta(days=3)


def test_an_inconclusive_part_is_due_again_after_the_parts_never_read() -> None:
    verdicts = [Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.PASS, Verdict.PASS, Verdict.PASS]

    seen, rotation = rotate(None, verdicts, 4)

    assert seen == [1, 2, 3, 4, 2]
    assert rotation is not None
    assert rotation.passed_at == NOON


def test_a_part_that_can_never_be_read_does_not_block_the_others() -> None:
    rotation, seen = None, []
    for day in range(16):
        part = due(rotation, Subset(None, 4)).part
        verdict = Verdict.INCONCLUSIVE if part == 2 else Verdict.PASS
        rotation = advance(
            rotation, result(part, 4, verdict), started_at=NOON + timedelta(days=day)
        )
        seen.append(part)

    assert seen == [1, 2, 3, 4, 2, 1, 2, 3, 2, 4, 2, 1, 2, 3, 2, 4]
    assert rotation is not None
    assert rotation.passed_at is None


def test_changing_the_number_of_parts_begins_a_new_rotation_and_keeps_passed_at() -> None:
    _, weekly = rotate(None, [Verdict.PASS] * 7, 7)

    seen, monthly = rotate(weekly, [Verdict.PASS] * 2, 30, day=7)

    assert seen == [1, 2]
    assert monthly is not None
    assert (monthly.parts, monthly.passed, monthly.passed_at) == (30, 2, NOON)


def test_a_requested_part_is_due() -> None:
    _, rotation = rotate(None, [Verdict.PASS] * 2, 7)

    assert due(rotation, Subset(5, 7)) == RotationPart(part=5, parts=7)


def test_a_backup_never_read_comes_first() -> None:
    _, rotation = rotate(None, [Verdict.PASS] * 2, 7)
    assert rotation is not None

    assert last_read([rotation], Level.CHECKSUM) == NOON + timedelta(days=1)
    assert last_read([rotation], Level.TSDB) < NOON
    assert last_read([], Level.CHECKSUM) < NOON


def test_the_result_of_a_whole_backup_cannot_advance_a_rotation() -> None:
    whole = result(1, 1).model_copy(update={"rotation": None})
    with pytest.raises(ValueError, match="no rotation"):
        advance(None, whole, started_at=NOON)
