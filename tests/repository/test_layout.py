"""Names of backups, blocks, snapshots and objects."""

import posixpath
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.model import Level
from prometheus_backup.repository import layout
from prometheus_backup.repository.layout import (
    backup_id,
    backup_time,
    check_path,
    is_backup_id,
    is_ulid,
    snapshot_time,
    ulid_time_ms,
    verification_level,
    verification_name,
)

_SECONDS = st.integers(
    int(datetime(1970, 1, 1, tzinfo=UTC).timestamp()),
    int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()),
).map(lambda seconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def test_backup_id_is_the_utc_second() -> None:
    instant = datetime(2025, 1, 22, 7, 30, 59, 999_999, timezone(timedelta(hours=5, minutes=30)))
    assert backup_id(instant) == "backup-20250122-020059"


@given(_SECONDS)
def test_backup_id_names_its_second(instant: datetime) -> None:
    assert is_backup_id(backup_id(instant))
    assert backup_time(backup_id(instant)) == instant


@given(_SECONDS, _SECONDS)
def test_backup_ids_sort_as_their_times(one: datetime, other: datetime) -> None:
    assert (backup_id(one) < backup_id(other)) == (one < other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "backup-",
        "backup-20250122",
        "backup-20250122-0200",
        "backup-20250122-02000",
        "backup-20250122-0200000",
        "backup-20250122T020000",
        "backup-20250122-020000/",
        "backup-20250122-020000\n",
        " backup-20250122-020000",
        "backup-20250122-020000-2",
        "Backup-20250122-020000",
        "snapshot-20250122-020000",
        "backup-20251322-020000",
        "backup-20250230-020000",
        "backup-20230229-020000",
        "backup-20250122-240000",
        "backup-20250122-026000",
        "backup-20250122-020060",
        "backup-20250122-020061",
        "backup-00000101-000000",
        "backup-+2025122-020000",
        "backup-2025 122-020000",
        "backup-\u0662\u0660\u0662\u06650122-020000",
    ],
)
def test_invalid_backup_id_is_refused(text: str) -> None:
    assert not is_backup_id(text)
    with pytest.raises(ValueError, match=r".+"):
        backup_time(text)


def test_leap_day_is_a_backup_id_in_leap_years() -> None:
    assert is_backup_id("backup-20240229-020000")


@given(st.text(max_size=30))
def test_no_text_breaks_the_recognition_of_names(text: str) -> None:
    if is_backup_id(text):
        assert backup_id(backup_time(text)) == text
    assert is_ulid(text) in (True, False)
    assert snapshot_time(text) is None or text.isascii()
    assert verification_level(text) is None or text.startswith("verification-")


def test_other_names_in_the_repository_sort_before_backups() -> None:
    assert layout.PROBE_PREFIX < "backup-"
    assert layout.TOOL_FOLDER < "backup-"


def test_names_of_control_objects_are_the_published_ones() -> None:
    assert (layout.MANIFEST, layout.INCOMPLETE, layout.SUMS) == (
        "metadata.json",
        "incomplete.json",
        "SHA256SUMS",
    )
    assert not any(is_ulid(n) for n in (layout.MANIFEST, layout.INCOMPLETE, layout.SUMS))


@pytest.mark.parametrize("level", list(Level))
def test_verification_names_carry_their_level(level: Level) -> None:
    assert verification_name(level) == f"verification-{level.value}.json"
    assert verification_level(verification_name(level)) == level


@pytest.mark.parametrize(
    "name",
    ["metadata.json", "verification-.json", "verification-size.json.tmp", "verification-SIZE.json"],
)
def test_other_names_carry_no_verification_level(name: str) -> None:
    assert verification_level(name) is None


@pytest.mark.parametrize("text", ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "0" * 26, "7" + "Z" * 25])
def test_ulid_is_recognised(text: str) -> None:
    assert is_ulid(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01ARZ3NDEKTSV4RRFFQ69G5FA",
        "01ARZ3NDEKTSV4RRFFQ69G5FAVV",
        "01arz3ndektsv4rrffq69g5fav",
        "81ARZ3NDEKTSV4RRFFQ69G5FAV",  # more than 128 bits
        "01ARZ3NDEKTSV4RRFFQ69G5FAI",  # I, L, O and U are not in Crockford's alphabet
        "01ARZ3NDEKTSV4RRFFQ69G5FAL",
        "01ARZ3NDEKTSV4RRFFQ69G5FAO",
        "01ARZ3NDEKTSV4RRFFQ69G5FAU",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV\n",
        "01ARZ3NDEKTSV4RRFFQ69G5F/V",
        "chunks_head",
        "wal",
    ],
)
def test_invalid_ulid_is_recognised(text: str) -> None:
    assert not is_ulid(text)


@given(st.integers(0, 2**48 - 1), st.text(_CROCKFORD, min_size=16, max_size=16))
def test_ulid_carries_its_milliseconds(milliseconds: int, entropy: str) -> None:
    digits = "".join(_CROCKFORD[milliseconds >> shift & 31] for shift in range(45, -1, -5))
    assert is_ulid(digits + entropy)
    assert ulid_time_ms(digits + entropy) == milliseconds


def test_ulid_of_the_specification_has_its_known_time() -> None:
    assert ulid_time_ms("01ARZ3NDEKTSV4RRFFQ69G5FAV") == 1_469_922_850_259


@pytest.mark.parametrize("suffix", ["0123456789abcdef", "1f"])
def test_snapshot_name_says_when_it_began(suffix: str) -> None:
    began = snapshot_time(f"20250122T020000Z-{suffix}")
    assert began == datetime(2025, 1, 22, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "20250122T020000Z",
        "20250122T020000Z-",
        "20250122T020000Z-XYZ",
        "20250122T020000Z-0123456789abcdef0",
        "20250122T020000Z-0123456789abcdef/..",
        "20251322T020000Z-0123456789abcdef",
        "20250122020000-0123456789abcdef",
        "\u0662\u0660\u0662\u06650122T020000Z-0123456789abcdef",
    ],
)
def test_invalid_snapshot_name_has_no_time(name: str) -> None:
    assert snapshot_time(name) is None


@pytest.mark.parametrize(
    "path",
    ["index", "chunks/000001", "a/b/c", "..index", "index..", "...", ".hidden", "grün", "a b"],
)
def test_path_below_its_root_is_returned(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", ".", "./a", "..", "../a", "a/..", "a/../b", "a\\b", "a\0"]
)
def test_path_that_could_leave_its_root_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        check_path(path)


@given(st.text(st.sampled_from("ab./\\\0\n\x7f~$"), max_size=20))
def test_accepted_path_stays_below_its_root(path: str) -> None:
    try:
        check_path(path)
    except ValueError:
        return
    # normpath changes every path that could leave the root or that is not unique.
    assert posixpath.normpath(path) == path
    assert posixpath.join("/root", path) == f"/root/{path}"
    assert not path.startswith("../")
    assert path.isprintable()


def test_longest_path_has_512_characters() -> None:
    assert check_path("a" * 512)
    with pytest.raises(ValueError, match="512"):
        check_path("a" * 513)
