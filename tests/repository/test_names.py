from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.repository.names import is_date, matching, neighbours

IDS = (
    "backup-20260228-020000",
    "backup-20260301-020000",
    "backup-20260301-140000",
    "backup-20260303-020000",
)


def test_an_id_means_itself_only() -> None:
    assert matching("backup-20260301-020000", IDS) == ("backup-20260301-020000",)
    assert matching("backup-20260302-020000", IDS) == ()


def test_a_date_means_every_backup_of_that_day() -> None:
    assert is_date("2026-03-01")
    assert matching("2026-03-01", IDS) == IDS[1:3]
    assert matching("2026-03-02", IDS) == ()


def test_a_beginning_means_every_id_that_begins_so() -> None:
    assert matching("backup-202602", IDS) == IDS[:1]
    assert matching("backup-2026", IDS) == IDS


def test_other_words_mean_nothing() -> None:
    for name in ("", "backup-", "backup", "latest", "20260301", "metadata.json", "2026-3-1"):
        assert not is_date(name)
        assert matching(name, IDS) == ()


def test_the_nearest_before_and_after_are_named() -> None:
    assert neighbours("2026-03-02", IDS) == ("backup-20260301-140000", "backup-20260303-020000")
    assert neighbours("2026-03-01", IDS) == ("backup-20260228-020000", "backup-20260303-020000")
    assert neighbours("2025-01-01", IDS) == ("backup-20260228-020000",)
    assert neighbours("2027-01-01", IDS) == ("backup-20260303-020000",)
    assert neighbours("backup-20260302-020000", IDS) == (
        "backup-20260301-140000",
        "backup-20260303-020000",
    )
    assert neighbours("2027-01-01", ()) == ()


@given(st.text(max_size=30))
def test_any_text_is_taken(name: str) -> None:
    assert set(matching(name, IDS)) <= set(IDS)
    assert set(neighbours(name, IDS)) <= set(IDS)
