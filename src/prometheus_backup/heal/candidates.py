"""Find the blocks of backups that can replace bad ones."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_backup.errors import ObjectNotFound
from prometheus_backup.heal.plan import BadBlock, CandidateBlocks
from prometheus_backup.repository.entry import BackupEntry, committed
from prometheus_backup.repository.manifest import Block
from prometheus_backup.repository.repository import Repository


class CandidateFinder:
    """Reads backups, the best first, and each manifest once.

    Good backups come before others, newer before older. A backup that is not good may still have a
    sound copy; whether a copy is sound is checked after the download.
    """

    def __init__(self, repository: Repository, bad: Sequence[BadBlock]) -> None:
        self.repository = repository
        self._wanted = frozenset(b.name for b in bad)
        self._spans = [b.span for b in bad if b.span]
        self._found: list[CandidateBlocks] = []
        self._unread: Iterator[BackupEntry] | None = None

    def find_copies(self) -> bool:
        """Read backups until each bad block has a copy; return whether all of them have one."""
        self._read_until(self._have_copies)
        return self._have_copies()

    def found(self) -> tuple[CandidateBlocks, ...]:
        """Return the candidates of the backups read so far."""
        return tuple(self._found)

    def all(self) -> tuple[CandidateBlocks, ...]:
        """Read every backup and return its candidates."""
        self._read_until(lambda: False)
        return self.found()

    def _have_copies(self) -> bool:
        return self._wanted <= {b.ulid for candidate in self._found for b in candidate.blocks}

    def _read_until(self, enough: Callable[[], bool]) -> None:
        if self._unread is None:
            best_first = sorted(
                committed(self.repository.entries()), key=lambda e: (e.good, e.time), reverse=True
            )
            self._unread = iter(best_first)
        while not enough() and (entry := next(self._unread, None)):
            try:
                blocks = self.repository.manifest(entry.backup_id).blocks
            except ObjectNotFound:  # deleted since the listing
                continue
            useful = tuple(b for b in blocks if self._is_useful(b))
            self._found.append(CandidateBlocks(entry.backup_id, useful))

    def _is_useful(self, block: Block) -> bool:
        return block.ulid in self._wanted or any(
            block.min_time < s.end and s.start < block.max_time for s in self._spans
        )
