"""Read from a repository which blocks of its backups may take the place of bad ones."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_backup.heal.plan import BadBlock, CandidateBlocks
from prometheus_backup.repository.manifest import Block
from prometheus_backup.repository.repository import BackupEntry, Repository, committed


class CandidateFinder:
    """The backups' blocks that may be of use: the best backups first, each manifest read once.

    Good backups come before the others, newer ones before older ones. One that is not good may hold
    a sound copy all the same; whether a copy is sound is seen once it has been brought.
    """

    def __init__(self, repository: Repository, bad: Sequence[BadBlock]) -> None:
        self.repository = repository
        self._wanted = frozenset(b.name for b in bad)
        self._spans = [b.span for b in bad if b.span]
        self._read: list[CandidateBlocks] = []
        self._unread: Iterator[BackupEntry] | None = None

    def each_has_a_copy(self) -> bool:
        """Read backups until each bad block is in one of them, or there are no more; tell which."""
        self._read_until(self._have_copies)
        return self._have_copies()

    def read(self) -> tuple[CandidateBlocks, ...]:
        """Return what was read so far."""
        return tuple(self._read)

    def all(self) -> tuple[CandidateBlocks, ...]:
        """Read every backup."""
        self._read_until(lambda: False)
        return self.read()

    def _have_copies(self) -> bool:
        return self._wanted <= {b.ulid for offer in self._read for b in offer.blocks}

    def _read_until(self, enough: Callable[[], bool]) -> None:
        if self._unread is None:
            best_first = sorted(
                committed(self.repository.entries()), key=lambda e: (e.good, e.time), reverse=True
            )
            self._unread = iter(best_first)
        while not enough() and (entry := next(self._unread, None)):
            blocks = self.repository.manifest(entry.backup_id).blocks
            useful = tuple(b for b in blocks if self._is_useful(b))
            self._read.append(CandidateBlocks(entry.backup_id, useful))

    def _is_useful(self, block: Block) -> bool:
        return block.ulid in self._wanted or any(
            block.min_time < s.end and s.start < block.max_time for s in self._spans
        )
