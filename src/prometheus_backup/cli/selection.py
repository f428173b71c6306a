"""Decides which backups `list` shows, and in which order. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_backup.cli.render import AsOf, state_words
from prometheus_backup.errors import UsageError
from prometheus_backup.model import Layout, Tier
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.retention.policy import Decision
from prometheus_backup.spans import Span


@dataclass(frozen=True, slots=True)
class Selection:
    """What a backup must be as of a time. An empty collection and None stand for any.

    `since` and `until` are inclusive limits of the time of the backup. `holding` is an instant of
    which it must have samples. `limit` is how many to show, the newest or the best.
    """

    as_of: AsOf
    since: datetime | None = None
    until: datetime | None = None
    states: frozenset[str] = frozenset()
    tiers: frozenset[Tier] = frozenset()
    layouts: frozenset[Layout] = frozenset()
    holding: datetime | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        """Raise UsageError if no backup can be in the time range."""
        if self.since and self.until and self.since > self.until:
            raise UsageError("cannot list: --until is before --since")

    def is_in_time(self, entry: BackupEntry) -> bool:
        """Return whether the backup was made between `since` and `until`."""
        after = self.since is None or self.since <= entry.time
        return after and (self.until is None or entry.time <= self.until)


def select(
    entries: Sequence[BackupEntry], decisions: Sequence[Decision], selection: Selection
) -> tuple[BackupEntry, ...]:
    """Return the selected backups, oldest first; with `holding`, best first."""
    tiers = {d.backup_id: d.tiers for d in decisions}
    found = [e for e in entries if _matches(e, tiers.get(e.backup_id, ()), selection)]
    if selection.holding is not None:
        found = sorted(found, key=_quality, reverse=True)
        return tuple(found[: selection.limit])
    return tuple(found[-selection.limit :] if selection.limit else found)


def nearest(
    entries: Sequence[BackupEntry], at: datetime
) -> tuple[tuple[BackupEntry, Span] | None, tuple[BackupEntry, Span] | None]:
    """Return the newest samples before an instant and the oldest after it, with who has them."""
    spans = [(e, span) for e in entries for span in e.spans]
    before = [(e, s) for e, s in spans if s.end <= at]
    after = [(e, s) for e, s in spans if s.start > at]
    return (
        max(before, key=lambda found: (found[1].end, _quality(found[0])), default=None),
        min(after, key=lambda found: found[1].start, default=None),
    )


def _matches(entry: BackupEntry, tiers: Sequence[Tier], selection: Selection) -> bool:
    at, header = selection.holding, entry.header
    return (
        selection.is_in_time(entry)
        and (
            not selection.states
            or not selection.states.isdisjoint(state_words(entry, selection.as_of))
        )
        and (not selection.tiers or not selection.tiers.isdisjoint(tiers))
        and (not selection.layouts or (header is not None and header.layout in selection.layouts))
        and (at is None or any(s.start <= at < s.end for s in entry.spans))
    )


def _quality(entry: BackupEntry) -> tuple[bool, bool, datetime]:
    """Return a key that sorts better backups later: good ones, intact ones, newer ones."""
    return entry.good, entry.intact, entry.time
