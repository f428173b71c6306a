"""Find the blocks of a snapshot that the archive has, and claim them before relying on them.

The order is what makes it safe (docs/design.md, "The archive"): the run writes down which folders
it will name, and only then looks whether they are complete and not marked for deletion.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_backup.model import SourceBlock
from prometheus_backup.repository.archive import Archive, ArchivedFolder
from prometheus_backup.repository.claim import Claim
from prometheus_backup.repository.layout import BLOCK, MANIFEST
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import exists
from prometheus_backup.transfer import small_requests
from prometheus_backup.tsdb.block import MUTABLE


@dataclass(frozen=True, slots=True)
class ArchivedBlocks:
    """The blocks of a snapshot that are in the archive, by ULID.

    `damaged` holds the keys of objects that are missing or faulty. `suspect` blocks were corrupt on
    the source's disk when they were kept, and may have been repaired since.
    """

    blocks: Mapping[str, Block] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()
    suspect: frozenset[str] = frozenset()
    folders: Mapping[str, ArchivedFolder] = field(default_factory=dict)

    def without(self, ulids: frozenset[str]) -> "ArchivedBlocks":
        """Return the same without some blocks."""
        kept = {ulid: block for ulid, block in self.blocks.items() if ulid not in ulids}
        return ArchivedBlocks(kept, self.damaged, self.suspect, self.folders)

    @property
    def healed(self) -> Mapping[str, ArchivedFolder]:
        """Return the folders, by name, with damaged objects, which this run sends again."""
        return {
            block.folder: self.folders[block.folder]
            for block in self.blocks.values()
            if block.folder and any(key in self.damaged for key in _keys(block))
        }


def find_archived(
    repository: Repository,
    claim: Claim,
    blocks: Sequence[SourceBlock],
    *,
    previous: Manifest | None,
    corrupt: frozenset[str],
) -> ArchivedBlocks:
    """Return the blocks that this backup can name in the archive, after claiming their folders.

    `previous` is the newest archive backup, `corrupt` the blocks found corrupt on the source's
    disk.
    """
    known = {b.ulid: b for b in previous.blocks} if previous else {}
    known |= _looked_up(repository.archive, [b for b in blocks if b.ulid not in known])
    found: dict[str, Block] = {}
    for source in blocks:
        candidate = known.get(source.ulid)
        if (
            candidate is not None
            and candidate.folder is not None
            and _same_files(source, candidate)
        ):
            found[source.ulid] = candidate
    if not found:
        return ArchivedBlocks()
    claim.say(block.folder for block in found.values() if block.folder)
    listed = repository.archive.folders()
    names = {ulid: block.folder or "" for ulid, block in found.items()}
    folders = {name: listed[name] for name in names.values() if name in listed}
    gone = set(names.values()) - listed.keys()
    if gone and previous and exists(repository.store, f"{previous.backup_id}/{MANIFEST}"):
        # Made again, which heals that backup. As long as it exists, nobody deletes these folders.
        folders |= {name: ArchivedFolder(name, {}) for name in gone & previous.folders}
    usable = {
        ulid: block
        for ulid, block in found.items()
        if names[ulid] in folders and _is_usable(folders[names[ulid]])
    }
    verdicts = repository.archive.all_verdicts([folders[names[ulid]] for ulid in usable])
    findings = [
        (ulid, finding)
        for ulid, block in usable.items()
        for verdict in verdicts.get(block.folder or "", ())
        for finding in verdict.findings
    ]
    faulty = {f.key for _, f in findings if not f.is_source_damage}
    suspect = {ulid for ulid, f in findings if f.is_source_damage}
    suspect |= {ulid for ulid, block in usable.items() if block.faults or ulid in corrupt}
    damaged = {
        key
        for block in usable.values()
        for key, size in _keys(block).items()
        if key in faulty or not _is_there(folders[block.folder or ""], key, size)
    }
    return ArchivedBlocks(usable, frozenset(damaged), frozenset(suspect), folders)


def unrepairable(
    archived: ArchivedBlocks, is_same: Callable[[str, str, int, str], bool]
) -> frozenset[str]:
    """Return the blocks that the source has otherwise than the archive had them.

    `is_same` tells whether a file of a block (ULID, path, size) on the source has a SHA-256.
    """
    return frozenset(
        ulid
        for ulid, block in archived.blocks.items()
        if not all(
            is_same(ulid, file.path, file.size, file.sha256)
            for file in block.files
            if file.path not in MUTABLE
            and (file.key in archived.damaged or ulid in archived.suspect)
        )
    )


def _looked_up(archive: Archive, sources: Sequence[SourceBlock]) -> Mapping[str, Block]:
    """Return the blocks that no manifest at hand names, as their folders describe them."""
    found = small_requests(lambda source: _lookup(archive, source), sources)
    return {block.ulid: block for block in found if block is not None}


def _lookup(archive: Archive, source: SourceBlock) -> Block | None:
    folders = archive.folders(source.ulid)
    usable = [n for n, f in sorted(folders.items()) if f.complete and _is_usable(f)]
    blocks = [block for name in usable if (block := archive.block(name)) is not None]
    return next((b for b in reversed(blocks) if _same_files(source, b)), None)


def _is_usable(folder: ArchivedFolder) -> bool:
    return folder.marked_at is None and not folder.forgotten


def _same_files(source: SourceBlock, block: Block) -> bool:
    """Return whether index and chunks have the same names and sizes: they never change."""
    ours = {(f.path, f.size) for f in source.files if f.path not in MUTABLE}
    return ours == {(f.path, f.size) for f in block.files if f.path not in MUTABLE}


def _keys(block: Block) -> Mapping[str, int | None]:
    return {**{f.key: f.size for f in block.files}, f"{block.folder}/{BLOCK}": None}


def _is_there(folder: ArchivedFolder, key: str, size: int | None) -> bool:
    info = folder.objects.get(key)
    return info is not None and size in (None, info.size)
