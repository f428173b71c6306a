"""Each rule of docs/design.md, "The archive", is needed: without it, a test of the model fails.

A rule is switched off in the real code, and the test that enumerates its scenario must fail.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from prometheus_backup.backup import archive as backup_archive
from prometheus_backup.backup import plan as backup_plan
from prometheus_backup.repository import repository as repository_module
from prometheus_backup.repository.archive import Archive, ArchivedFolder, ArchiveView
from prometheus_backup.repository.claim import Claim
from prometheus_backup.repository.layout import UNWANTED, archive_folder
from prometheus_backup.repository.reading import EntryReader, Look
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention import archive as retention_archive
from prometheus_backup.retention import prune as retention_prune
from prometheus_backup.retention.archive import ArchivePlan, ArchivePruner
from tests.retention import test_archive as model
from tests.retention import test_erase
from tests.support.interleavings import InlinePool

Patch = pytest.MonkeyPatch


def one_name_for_all_runs(patch: Patch) -> None:
    """Every run writes a block into the same folder."""
    patch.setattr(
        backup_plan,
        "archive_folder",
        lambda ulid, _: archive_folder(ulid, "backup-20250101-000000"),
    )


def look_before_the_claim(patch: Patch) -> None:
    """A run lists the archive, and then says which folders it will name."""
    say = Claim.say

    def late(claim: Claim, folders: Any) -> None:
        archive = claim._repository.archive
        listed = archive.folders()
        say(claim, folders)
        patch.setattr(archive, "folders", lambda *_: listed)

    patch.setattr(Claim, "say", late)
    # The late look reads the listing again.
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def no_claim_of_names(patch: Patch) -> None:
    """A run does not say which folders it will name."""
    patch.setattr(Claim, "say", lambda *_: None)
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def names_of_claims_are_not_wanted(patch: Patch) -> None:
    """A prune reads manifests only."""
    wanted = retention_archive.wanted_folders

    def without_names(entries: Sequence[Any], folders: Any) -> frozenset[str]:
        named = [replace(e, incomplete=_nameless(e.incomplete)) for e in entries]
        return wanted(named, folders)

    patch.setattr(retention_archive, "wanted_folders", without_names)
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def _nameless(incomplete: Any) -> Any:
    return incomplete and incomplete.model_copy(update={"names": ()})


def folders_of_running_backups_are_not_wanted(patch: Patch) -> None:
    """A prune does not spare what a run has written and not yet committed."""
    wanted = retention_archive.wanted_folders
    patch.setattr(retention_archive, "wanted_folders", lambda entries, _: wanted(entries, ()))
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def marks_are_ignored(patch: Patch) -> None:
    """A run names a folder although it is marked."""
    patch.setattr(backup_archive, "_is_usable", lambda _: True)
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def claims_are_read_last(patch: Patch) -> None:
    """A prune reads manifests, then claims: a run that commits in between is in neither."""
    entries = Repository._entries

    def later(repository: Repository, view: ArchiveView | None, **more: bool) -> Sequence[Any]:
        claims = repository.archive.claims
        with pytest.MonkeyPatch.context() as own:
            own.setattr(repository.archive, "claims", dict)
            unclaimed = replace(view, claims={}) if view else None
            found = entries(repository, unclaimed, **more)
        known = {e.backup_id for e in found}
        look = Look(claims=claims(), catalogued=frozenset())
        read = (repository._reader.entry(i, look) for i in look.claims if i not in known)
        return (*found, *(e for e in read if e is not None and e.incomplete))

    patch.setattr(Repository, "_entries", later)
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def a_vanished_claim_is_forgotten(patch: Patch) -> None:
    """A claim that is gone when it is read counts as no claim."""
    patch.setattr(EntryReader, "entry", EntryReader._read)
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def the_archive_is_listed_last(patch: Patch) -> None:
    """A prune reads who wants what, and then lists the archive."""
    entries, plan = Repository.entries, retention_archive.plan_archive
    asked: list[Repository] = []

    def remember(repository: Repository, view: ArchiveView | None = None) -> Sequence[Any]:
        asked.append(repository)
        return entries(repository, view)

    def with_late_listing(found: Any, _: Any, **more: Any) -> ArchivePlan:
        return plan(found, asked[-1].archive.folders(), **more)

    patch.setattr(Repository, "entries", remember)
    patch.setattr(retention_prune, "plan_archive", with_late_listing)


def no_mark(patch: Patch) -> None:
    """A prune deletes at once what nobody wants, without a mark and a second look."""

    def mark_nothing(pruner: ArchivePruner, plan: ArchivePlan) -> None:
        for folder in plan.mark:
            pruner.repository.archive.delete(folder)

    patch.setattr(ArchivePruner, "mark", mark_nothing)
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def no_reading_before_the_deletion(patch: Patch) -> None:
    """A prune deletes what it had found unwanted, without reading again who wants it."""

    def delete(pruner: ArchivePruner, plan: ArchivePlan) -> tuple[None, Sequence[ArchivedFolder]]:
        for folder in plan.delete:
            pruner.repository.archive.delete(folder)
        return None, plan.delete

    patch.setattr(ArchivePruner, "delete", delete)


def the_mark_goes_first(patch: Patch) -> None:
    """A deletion removes the mark, and then the objects."""
    delete = Archive.delete

    def mark_first(archive: Archive, folder: ArchivedFolder) -> None:
        archive._store.delete([f"{folder.name}/{UNWANTED}"])
        delete(archive, folder)

    patch.setattr(Archive, "delete", mark_first)
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def no_late_look(patch: Patch) -> None:
    """A run that was suspended does not look again after its manifest."""
    patch.setattr(Claim, "_require_archived", lambda *_: None)


def no_end_of_a_silent_run(patch: Patch) -> None:
    """A run continues after any time, and nobody checks that it still has its claim."""
    patch.setattr(Claim, "_require_archived", lambda *_: None)
    patch.setattr(Claim, "_require_ours", lambda *_: None)


def what_cannot_be_read_is_ignored(patch: Patch) -> None:
    """A prune deletes although it does not know what is wanted."""
    patch.setattr(retention_archive, "unknown", lambda _: None)


def what_is_gone_is_always_made_again(patch: Patch) -> None:
    """A run writes into a folder that is gone, although no manifest names it."""
    patch.setattr(backup_archive, "exists", lambda *_: True)


def a_lost_manifest_is_a_deletion(patch: Patch) -> None:
    """A backup that only the catalogue knows counts as deleted."""
    patch.setattr(EntryReader, "_is_lost", lambda *_: False)


@dataclass(frozen=True)
class Rule:
    """A rule, switched off, and the test that needs it."""

    off: Callable[[Patch], None]
    needed_by: Callable[..., None]
    arguments: Mapping[str, Any]


def rule(off: Callable[[Patch], None], needed_by: Callable[..., None], **arguments: Any) -> Any:
    return pytest.param(Rule(off, needed_by, arguments), id=off.__name__.replace("_", "-"))


NAMES = model.test_a_run_that_names_a_folder_while_it_is_marked_loses_nothing
DAYS = model.test_a_run_that_is_suspended_for_days_commits_whole_or_not_at_all
SLEEPER = model.test_a_run_whose_clock_slept_with_its_machine_commits_whole_or_not_at_all
NO_GRACE = model.test_prunes_without_a_grace_period_take_nothing_from_a_run
DELETION = model.test_a_run_does_not_name_a_folder_that_is_being_deleted
LATE = model.test_a_run_that_named_a_folder_just_before_its_mark_may_commit_a_day_later
WRITING = model.test_a_prune_marks_nothing_that_a_run_is_writing
TWO = model.test_two_runs_that_keep_a_block_of_one_name_do_not_meet
AGAIN = model.test_a_deletion_reads_the_manifests_again
ERASED = test_erase.test_two_users_who_forget_the_same_block_take_nothing_from_a_run
UNREADABLE = model.test_what_cannot_be_read_stops_every_deletion_in_the_archive


@pytest.mark.parametrize(
    "switched",
    [
        rule(one_name_for_all_runs, TWO, blocks=model.OTHER_BYTES),
        rule(look_before_the_claim, NO_GRACE),
        rule(no_claim_of_names, NO_GRACE),
        rule(names_of_claims_are_not_wanted, NO_GRACE),
        rule(folders_of_running_backups_are_not_wanted, WRITING),
        rule(marks_are_ignored, DELETION),
        rule(claims_are_read_last, LATE),
        rule(a_vanished_claim_is_forgotten, LATE),
        rule(the_archive_is_listed_last, WRITING),
        rule(no_mark, NAMES),
        rule(no_reading_before_the_deletion, AGAIN),
        rule(the_mark_goes_first, DELETION),
        rule(no_late_look, SLEEPER),
        rule(no_end_of_a_silent_run, DAYS),
        rule(what_is_gone_is_always_made_again, ERASED),
        rule(what_cannot_be_read_is_ignored, UNREADABLE, lost="manifest"),
        rule(a_lost_manifest_is_a_deletion, UNREADABLE, lost="whole-manifest"),
    ],
)
def test_without_this_rule_a_test_fails(switched: Rule, monkeypatch: Patch) -> None:
    monkeypatch.setattr(repository_module, "ThreadPoolExecutor", InlinePool)
    switched.off(monkeypatch)
    own = {"monkeypatch": monkeypatch} if switched.needed_by is NO_GRACE else {}
    with pytest.raises(AssertionError):
        switched.needed_by(**switched.arguments, **own)
