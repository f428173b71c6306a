"""Which chunk encodings a Prometheus writes, and which it can read. Pure.

Encodings are a mapping from the name to the number of chunks; None if the block may have some, but
nobody has counted them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_backup.prometheus.versions import Release, release
from prometheus_backup.tsdb.encodings import ENCODINGS

Encodings = Mapping[str, int | None]

_READ_SINCE: Mapping[str, Release] = {
    "xor": (0, 0),
    "histogram": (2, 40),
    "float-histogram": (2, 42),
    "xor2": (3, 11),
    "histogram-st": (3, 14),
    "float-histogram-st": (3, 14),
}
_UNKNOWN_SINCE: Release = (3, 15)
"""The first release that may have an encoding that this program does not know."""
_ANY: Release = (3, 0)
"""A Prometheus of unknown version is expected to read what this release reads."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """The release from which Prometheus reads these encodings.

    `certain` is False if the block may also have none of them.
    """

    encodings: tuple[str, ...]
    release: Release
    certain: bool

    @property
    def since(self) -> str:
        """Return the release as text."""
        return "{}.{}".format(*self.release)

    def __str__(self) -> str:
        verb = "has" if self.certain else "may have"
        *others, last = self.encodings
        names = f"{', '.join(others)} and {last}" if others else last
        return f"{verb} {names} chunks, which Prometheus can read since {self.since}"


def requirement(encodings: Encodings, *, version: str) -> Requirement | None:
    """Return what a Prometheus of this version cannot read; None if it can read everything.

    An empty version is unknown: then only what Prometheus 3.0 cannot read is returned.
    """
    reads = release(version) or _ANY
    missing = {name for name in encodings if _read_since(name) > reads}
    counted = {name for name in missing if encodings[name] is not None}
    names = tuple(sorted(counted or missing))
    if not names:
        return None
    return Requirement(names, max(map(_read_since, names)), certain=bool(counted))


def strictest(requirements: Iterable[Requirement | None]) -> Requirement | None:
    """Return all requirements as one, without the uncertain ones if others are certain."""
    found = [r for r in requirements if r is not None]
    found = [r for r in found if r.certain] or found
    if not found:
        return None
    names = tuple(sorted({name for r in found for name in r.encodings}))
    return Requirement(names, max(r.release for r in found), certain=found[0].certain)


def is_newer_possible(encodings: Encodings) -> bool:
    """Return whether a block may have chunks that only new versions can read, but were not counted.

    Then it is worth reading the block again.
    """
    found = requirement(encodings, version="")
    return found is not None and not found.certain


def evident_encodings(stats: Mapping[str, int]) -> Encodings:
    """Return the encodings that the counts of a meta.json prove, without their numbers.

    Prometheus 3.11 and 3.12 do not count the samples of XOR2 as floats (#18739).
    """
    if not stats.keys() & {"numFloatSamples", "numHistogramSamples"}:
        return {}
    counted = stats.get("numFloatSamples", 0) + stats.get("numHistogramSamples", 0)
    return {"xor2": None} if stats.get("numSamples", 0) > counted else {}


def written_encodings(
    stats: Mapping[str, int], *, features: Collection[str], floats: str
) -> Encodings:
    """Return the encodings that a block may have, by its counts and the settings of its Prometheus.

    `floats` is `storage.tsdb.chunk_encoding.floats`, which counts instead of the feature.
    """
    separate = bool(stats.keys() & {"numFloatSamples", "numHistogramSamples"})
    histograms = bool(stats.get("numHistogramSamples"))
    names = {"xor"} if stats.get("numSamples") or not separate else set()
    if floats == "xor2" or (not floats and "xor2-encoding" in features):
        names |= {"xor2"} if names else set()
    if histograms or (not separate and "native-histograms" in features):
        names |= {"histogram", "float-histogram"}
        if "histograms-st-encoding" in features:
            names |= {"histogram-st", "float-histogram-st"}
    return _by_number(dict.fromkeys(names)) | dict(evident_encodings(stats))


def united(several: Sequence[Encodings]) -> Encodings:
    """Return the encodings that a block may have that was compacted from several others."""
    return _by_number({name: None for encodings in several for name in encodings})


def _by_number(names: Encodings) -> dict[str, int | None]:
    known = [name for name in ENCODINGS.values() if name in names]
    return {name: names[name] for name in (*known, *sorted(names.keys() - set(known)))}


def _read_since(name: str) -> Release:
    return _READ_SINCE.get(name, _UNKNOWN_SINCE)
