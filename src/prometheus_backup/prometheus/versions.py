"""What the versions of Prometheus can do. Pure."""

import re

Release = tuple[int, int]
"""Major and minor version."""

RETENTION_IN_CONFIGURATION: Release = (3, 8)
"""From here on, the configuration file may have a retention, which counts instead of the flags."""
RETENTION_SECTION_IS_COMPLETE: Release = (3, 11)
"""From here on, no flag fills in what a retention section does not have."""

NEWER_CHUNKS: Release = (3, 11)
"""From here on, Prometheus can write chunks that older ones cannot read."""


def release(version: str) -> Release | None:
    """Return the release of a version such as `3.11.0-rc.1`; None if it is not a version."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def same_semantics(one: str, other: str) -> bool:
    """Return whether two versions of Prometheus evaluate queries in the same way.

    In 2.x a range includes a sample at its start; since 3.0 it does not.
    """
    return one.partition(".")[0] == other.partition(".")[0]


def is_before(version: str, since: Release) -> bool:
    """Return whether a version is known to be older than a release."""
    found = release(version)
    return found is not None and found < since
