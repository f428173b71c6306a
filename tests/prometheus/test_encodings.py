"""Which chunk encodings a Prometheus writes, and which it can read."""

import pytest

from prometheus_backup.prometheus.encodings import (
    Encodings,
    Requirement,
    evident_encodings,
    requirement,
    strictest,
    written_encodings,
)
from prometheus_backup.tsdb.encodings import ENCODINGS

FLOATS = {"numSamples": 9, "numFloatSamples": 9, "numSeries": 1}
BOTH = {"numSamples": 9, "numFloatSamples": 4, "numHistogramSamples": 5}
ALL = {"numSamples": 9}
"""As before Prometheus 3.6, and as 3.11 and 3.12 write it if all samples are XOR2."""


@pytest.mark.parametrize(
    ("encodings", "version", "since"),
    [
        ({"xor": 7}, "2.39.1", None),
        ({"xor": 7, "histogram": 1}, "2.39.1", "2.40"),
        ({"xor": 7, "float-histogram": 1}, "2.41.0", "2.42"),
        ({"xor": 7, "xor2": 1}, "3.5.3", "3.11"),
        ({"xor": 7, "xor2": 1}, "3.10.0", "3.11"),
        ({"xor": 7, "xor2": 1}, "3.11.0-rc.0", None),
        ({"xor2": 1, "histogram-st": 1}, "3.5.3", "3.14"),
        ({"xor2": 1, "histogram-st": 1}, "3.13.2", "3.14"),
        ({"float-histogram-st": 1}, "3.14.0", None),
        ({"encoding-77": 1}, "3.14.0", "3.15"),
        ({"xor2": 1}, "", "3.11"),
        ({"xor": 1, "histogram": 1, "float-histogram": 1}, "", None),
        ({"xor2": 1}, "master-4a1", "3.11"),
    ],
)
def test_the_release_that_a_block_needs_is_known(
    encodings: Encodings, version: str, since: str | None
) -> None:
    needed = requirement(encodings, version=version)
    assert (needed and needed.since) == since
    assert needed is None or needed.certain


def test_every_known_encoding_can_be_read_by_the_newest_known_release() -> None:
    assert requirement(dict.fromkeys(ENCODINGS.values(), 1), version="3.14.0") is None


def test_what_was_counted_is_certain_and_the_rest_is_not() -> None:
    may = requirement({"xor": None, "xor2": None}, version="3.5.3")
    has = requirement({"xor": 1, "xor2": 1, "histogram-st": None}, version="3.5.3")

    assert str(may) == "may have xor2 chunks, which Prometheus can read since 3.11"
    assert str(has) == "has xor2 chunks, which Prometheus can read since 3.11"
    assert strictest([None, may, has]) == has
    assert strictest([None, may]) == may
    assert strictest([None]) is None
    both = strictest([has, Requirement(("histogram-st",), (3, 14), certain=True)])
    assert str(both) == "has histogram-st and xor2 chunks, which Prometheus can read since 3.14"


@pytest.mark.parametrize(
    ("stats", "features", "floats", "names"),
    [
        (FLOATS, (), "", ["xor"]),
        (FLOATS, ("native-histograms", "histograms-st-encoding"), "", ["xor"]),
        (FLOATS, ("xor2-encoding",), "", ["xor", "xor2"]),
        (FLOATS, ("xor2-encoding",), "xor", ["xor"]),
        (FLOATS, (), "xor2", ["xor", "xor2"]),
        (BOTH, (), "", ["xor", "histogram", "float-histogram"]),
        (
            BOTH,
            ("histograms-st-encoding",),
            "",
            ["xor", "histogram", "float-histogram", "histogram-st", "float-histogram-st"],
        ),
        (ALL, (), "", ["xor"]),
        (ALL, ("native-histograms",), "", ["xor", "histogram", "float-histogram"]),
        ({"numSamples": 604, "numHistogramSamples": 4}, (), "", None),
    ],
)
def test_what_a_block_may_have_follows_from_the_settings_and_its_counts(
    stats: dict[str, int], features: tuple[str, ...], floats: str, names: list[str] | None
) -> None:
    found = written_encodings(stats, features=features, floats=floats)
    assert list(found) == (names or ["xor", "histogram", "float-histogram", "xor2"])
    assert set(found.values()) == {None}


def test_samples_that_are_in_no_count_are_of_xor2() -> None:
    assert evident_encodings({"numSamples": 604, "numHistogramSamples": 4}) == {"xor2": None}
    assert evident_encodings(FLOATS) == evident_encodings(BOTH) == evident_encodings(ALL) == {}
