"""Estimated durations, from measurements and named assumptions."""

import pytest

from devtools.durations import (
    BENCHMARKS,
    HEAD_SERIES,
    MIB,
    OVERHEAD,
    STORE_COPIES,
    Measured,
    durations,
    measured,
)

RATES = Measured(send=100 * MIB, read=400 * MIB)
GB = 1000**3


def test_rates_are_those_of_the_benchmark() -> None:
    page = BENCHMARKS.read_text()
    rates = measured(page)
    assert f"| ours, `--verify-level size` | {1040 * MIB / rates.send:.2f} s |" in page
    assert f"| ours | {1040 * MIB / rates.read:.2f} s |" in page
    with pytest.raises(ValueError, match="benchmarks"):
        measured(page.replace("- Data:", "- Nothing:"))


def test_slower_of_link_and_program_decides() -> None:
    slow, fast = (durations(10 * GB, bits=bits, rates=RATES) for bits in (1e8, 1e11))
    assert slow.first_upload == pytest.approx(10 * GB / (1e8 / 8 * 0.9))
    assert fast.first_upload == pytest.approx(10 * GB / (100 * MIB))
    assert fast.restore == pytest.approx(OVERHEAD + 10 * GB / (400 * MIB))


def test_nightly_backup_uploads_new_blocks_and_copies_the_rest() -> None:
    found = durations(10 * GB, bits=1e11, rates=RATES)
    # 38 of 368 hours are new each night, in 6 of 25 blocks with half an hour of index each.
    assert found.sent == pytest.approx(10 * GB * (38 + 6.3 / 2) / (368 + 24.7 / 2), rel=0.01)
    copies = (10 * GB - found.sent) / STORE_COPIES
    assert found.night_upload == pytest.approx(found.sent / (100 * MIB) + copies)
    reading = found.sent / (400 * MIB)
    assert found.night_total == pytest.approx(
        OVERHEAD + found.snapshot + found.night_upload + reading
    )
    assert found.snapshot == found.series / HEAD_SERIES
    assert found.series == round(10 * GB / 1.5 / (15 * 86400 / 15))
