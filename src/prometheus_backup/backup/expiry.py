"""Whether rules of the bucket would delete what backups share, however many still need it."""

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_backup.errors import BackupToolError, UsageError
from prometheus_backup.model import BLOCK_TAGS, Layout
from prometheus_backup.repository.layout import ARCHIVE
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import ExpiringStore
from prometheus_backup.stores.lifecycle import ExpiryRule


@dataclass(frozen=True, slots=True)
class Expiry:
    """The rules that delete objects of the archive; `unknown` says why they could not be read."""

    rules: Sequence[ExpiryRule] = ()
    unknown: str = ""

    @classmethod
    def of(cls, repository: Repository) -> "Expiry":
        """Read the rules. A failure is no error: many may write, but not look at the bucket."""
        store = repository.store
        if not isinstance(store, ExpiringStore):
            return cls()
        try:
            return cls(store.expiry_rules(ARCHIVE, tags=BLOCK_TAGS))
        except BackupToolError as error:
            return cls(unknown=error.message)

    def error(self, repository: Repository) -> UsageError:
        """Return what is wrong with the first rule, and what to do."""
        rule = self.rules[0]
        return UsageError(
            f"cannot keep blocks in {repository.url}/{ARCHIVE}: lifecycle {rule}, although newer "
            "backups may need them",
            hint="limit the rule to keys that begin with backup- below the prefix of the "
            "repository, or remove it (docs/how-to/troubleshooting.md)",
        )


def require_kept(repository: Repository) -> None:
    """Raise UsageError if a rule of the bucket deletes blocks of the archive."""
    expiry = Expiry.of(repository)
    if expiry.rules:
        raise expiry.error(repository)


def look_for_expiry(repository: Repository, layout: Layout) -> str | None:
    """Return what the rules mean for the archive, as a line of `check`; None if nothing.

    Raises UsageError if a rule deletes its blocks, and it is used, or will be with this layout.
    """
    expiry = Expiry.of(repository)
    used = layout is Layout.ARCHIVE or bool(repository.archive.folders())
    if expiry.rules and used:
        raise expiry.error(repository)
    if expiry.rules:
        return f"{expiry.rules[0]}, also below {ARCHIVE}/: LAYOUT=archive would be refused"
    if not used:
        return None
    if expiry.unknown:
        return f"{expiry.unknown}; make sure that none expires objects below {ARCHIVE}/"
    return f"none expires objects below {ARCHIVE}/"
