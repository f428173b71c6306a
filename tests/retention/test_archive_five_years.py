"""Five simulated years of an archive: what its decisions keep, night after night.

The source has one sample an hour and a compactor; samples are deleted, come late, or are missing,
nights are missed, and a new Prometheus takes over. The decisions are the real ones; what the
commands do with them is simulated in memory. Samples are bits, so that this takes seconds.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random

import pytest

from prometheus_backup.model import ObjectInfo, ms_from_instant
from prometheus_backup.repository.archive import ArchivedFolder
from prometheus_backup.repository.entry import BackupEntry, State
from prometheus_backup.repository.layout import (
    BLOCK,
    UNWANTED,
    archive_folder,
    backup_id,
    last_name,
)
from prometheus_backup.repository.manifest import ArchivedTimes, NamedFolder
from prometheus_backup.retention.archive import held_blocks, plan_archive, wanted_folders
from prometheus_backup.retention.history import history
from prometheus_backup.retention.policy import Candidate, Policy, decide

BEGIN = datetime(2021, 1, 1, tzinfo=UTC)
NIGHTS = 5 * 365
HOUR_MS = 3_600_000
KEEPS_HOURS = 15 * 24
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class Block:
    """Hours since BEGIN, half open; bit n of the samples is that of hour `begin + n`.

    `late` are samples that came out of order; a `partial` block has only those.
    """

    ulid: str
    begin: int
    end: int
    samples: int
    late: int = 0
    partial: bool = False


class Source:
    """A Prometheus, and what was ever scraped and not deleted, as bits by hour."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._numbers = count(1)
        self.blocks: list[Block] = []
        self.cut = self.now = 0
        self.scraped = self.late = 0
        self._head = 0
        self._down_until = 0

    def hour(self) -> None:
        """Scrape one sample, unless the target is down; cut, compact and delete blocks."""
        if self.now >= self._down_until:
            self._head |= 1 << (self.now - self.cut)
            self.scraped |= 1 << self.now
            if self._random.random() < 0.001:
                self._down_until = self.now + self._random.choice([3, 9, 40])
        self.now += 1
        if self.now - self.cut == 3:
            self._add(Block("", self.cut, self.cut + 2, self._head & 3))
            self._head >>= 2
            self.cut += 2
            self._compact(6)
            self._compact(18)
        self.blocks = [b for b in self.blocks if b.end > self.now - KEEPS_HOURS]

    def _add(self, block: Block) -> None:
        if block.samples or block.late:
            number, ulid = next(self._numbers), ""
            for _ in range(10):
                number, digit = divmod(number, 32)
                ulid = _DIGITS[digit] + ulid
            self.blocks.append(replace(block, ulid=f"01JJ5W0B8ZC6X3M1{ulid}"))

    def _compact(self, hours: int) -> None:
        """Merge the blocks of each complete range, with late samples among them."""
        groups: dict[int, list[Block]] = {}
        for block in self.blocks:
            groups.setdefault(block.begin // hours, []).append(block)
        for number, members in groups.items():
            whole = [b for b in members if b.end <= (number + 1) * hours]
            if number == max(groups) or len(whole) < 2 or all(b.partial for b in whole):
                continue
            begin = min(b.begin for b in whole)
            self.blocks = [b for b in self.blocks if b not in whole]
            samples = late = 0
            for block in whole:
                samples |= block.samples << (block.begin - begin)
                late |= block.late << (block.begin - begin)
            self._add(Block("", begin, max(b.end for b in whole), samples, late))

    def head(self) -> Block:
        """What a snapshot has of the memory, under a ULID of its own."""
        known = self.blocks
        self.blocks = []
        self._add(Block("", self.cut, max(self.now, self.cut + 1), self._head))
        made, self.blocks = self.blocks, known
        return made[0] if made else Block("", 0, 0, 0)

    def delete_samples(self) -> None:
        """Delete a sample with the API: the block gets tombstones and keeps its name."""
        place = self._random.randrange(len(self.blocks))
        block = self.blocks[place]
        offset = self._random.randrange(block.end - block.begin)
        gone = ~(1 << offset)
        self.blocks[place] = replace(block, samples=block.samples & gone, late=block.late & gone)
        self.scraped &= ~(1 << (block.begin + offset))
        self.late &= ~(1 << (block.begin + offset))

    def delete_block(self) -> None:
        """Remove the folder of a block, which the compactor would not have merged any more."""
        final = [b for b in self.blocks if b.end - b.begin == 18]
        if final:
            self.blocks.remove(self._random.choice(final))

    def come_late(self) -> None:
        """Get samples out of order, in a block of their own."""
        begin = (self.now - self._random.randrange(6, 30)) // 2 * 2
        if begin >= 0:
            self._add(Block("", begin, begin + 2, 0, 3, partial=True))
            self.late |= 3 << begin

    def begin_again(self) -> None:
        """Lose all data, as a new Prometheus does."""
        self.blocks, self._head, self.cut = [], 0, self.now


class Archive:
    """The folders of an archive and the backups that name them, as real code sees them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.entries: dict[str, BackupEntry] = {}
        self.folders: dict[str, ArchivedFolder] = {}
        self.held: dict[tuple[str, str], Block] = {}
        """What a backup had of a folder."""
        self.seen = self.seen_late = 0

    def backup(self, blocks: list[Block], now: datetime) -> None:
        """Name the newest folder of each block that is not marked, or write one."""
        identifier = backup_id(now)
        known = {n.split("/")[1]: n for n, f in self.folders.items() if f.marked_at is None}
        named = {}
        for block in blocks:
            name = known.get(block.ulid) or archive_folder(block.ulid, identifier)
            self._put(name, BLOCK, now)
            times = (BEGIN_MS + block.begin * HOUR_MS, BEGIN_MS + block.end * HOUR_MS)
            named[name] = NamedFolder(ArchivedTimes(*times, block.partial), 1, ())
            self.held[identifier, name] = block
            self.seen |= block.samples << block.begin
            self.seen_late |= block.late << block.begin
        self.entries[identifier] = BackupEntry(identifier, State.COMMITTED, folders=named)

    def prune(self, now: datetime) -> None:
        """Do what `prune` does, in its order."""
        judged = [Candidate(e.backup_id, e.time, good=True) for e in self.entries.values()]
        decisions = decide(judged, today=now.date(), policy=self.policy, now=now)
        deleted = frozenset(d.backup_id for d in decisions if not d.keep)
        plan = plan_archive(
            [*self.entries.values()],
            self.folders,
            deleted=deleted,
            store_now=now,
            history_for=self.policy.history,
        )
        assert plan.blocked is None
        for name, identifier in plan.remember.items():
            times = self.entries[identifier].folders[name].times
            last = last_name(identifier, times.begin_ms, times.end_ms, partial=times.partial)
            self._put(name, last, now)
        for identifier in deleted:
            del self.entries[identifier]
        for folder in plan.mark:
            self._put(folder.name, UNWANTED, now)
        wanted = wanted_folders(self.entries.values(), plan.delete)
        for folder in plan.delete:
            if folder.name not in wanted:
                del self.folders[folder.name]

    def _put(self, folder: str, name: str, now: datetime) -> None:
        info = ObjectInfo(f"{folder}/{name}", 1, now, "")
        there = self.folders.get(folder)
        objects = {**(there.objects if there else {}), info.key: info}
        self.folders[folder] = ArchivedFolder(folder, objects)

    def require_whole(self) -> None:
        """Every folder that a kept backup names is there, and complete."""
        for entry in self.entries.values():
            missing = entry.folders.keys() - self.folders.keys()
            assert not missing, f"{entry.backup_id} lacks {missing}"
            assert all(self.folders[name].complete for name in entry.folders)

    def require_history(self, source: Source, now: datetime) -> None:
        """No sample that is younger than the limit, and that a backup had, is missing."""
        since = max(now - self.policy.history, BEGIN)
        held = held_blocks(self.entries.values(), self.folders)
        samples = late = 0
        for name in history(held.values(), since_ms=ms_from_instant(since)):
            block = self.held[held[name].held_by, name]
            samples |= block.samples << block.begin
            late |= block.late << block.begin
        first = -((BEGIN - since) // timedelta(hours=1))
        missing = (source.scraped & self.seen & ~samples) >> first
        assert not missing, f"on {now}, {missing.bit_count()} samples are missing"
        missing = (source.late & self.seen_late & ~late) >> first
        assert not missing, f"on {now}, {missing.bit_count()} late samples are missing"


BEGIN_MS = ms_from_instant(BEGIN)


@pytest.mark.parametrize(
    "kept_for", [timedelta(0), timedelta(days=150)], ids=["30/12/3", "with-history"]
)
def test_five_years_of_an_archive(kept_for: timedelta) -> None:
    random = Random(1)
    source, archive = Source(random), Archive(Policy(history=kept_for))
    down_until = 0
    for night in range(NIGHTS):
        now = BEGIN + timedelta(hours=source.now)
        if night == 800:
            source.begin_again()
        if source.blocks and random.random() < 0.1:
            random.choice([source.delete_samples, source.delete_block, source.come_late])()
        if night >= down_until and random.random() < 0.04:  # nights without a backup
            down_until = night + random.choice([1, 1, 2, 5, 21])
        if night >= down_until and source.blocks:
            archive.backup([*source.blocks, source.head()], now)
            archive.prune(now)
            archive.require_whole()
            if kept_for and night % 3 == 0:  # what is lost stays lost
                archive.require_history(source, now)
        for _ in range(24):
            source.hour()
    assert len(archive.entries) > 20, "each tier has its backups"
    unmarked = [f for f in archive.folders.values() if f.marked_at is None]
    named = {name for e in archive.entries.values() for name in e.folders}
    # Nothing is kept that nobody needs, but for what the last night marks.
    assert len(unmarked) < (len(named) + 1000 if kept_for else len(named) + 60)
