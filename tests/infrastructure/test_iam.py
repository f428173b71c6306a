"""The IAM policies of `infrastructure/aws`, enforced: what each allows and denies."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.moto_server import MotoServer
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from tests.support.aws_policies import BUCKET, PREFIX, Statement, statements
from tests.support.runs import settings
from tests.support.stored_backups import S3Files, StoredBackups, copy_to, put_small_backup, run_here

Done = subprocess.CompletedProcess[str]
OLD = datetime(2020, 6, 15, 2, tzinfo=UTC)
"""The time of a backup that matches no retention rule any more."""


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory, prometheus_3: PrometheusBinaries, tsdb_blocks: Path
) -> Iterator[PrometheusServer]:
    """A Prometheus to back up, shared by all tests in this file."""
    data = tmp_path_factory.mktemp("iam") / "data"
    shutil.copytree(tsdb_blocks, data)
    with PrometheusServer(prometheus_3, data) as server:
        server.fill_head()
        yield server
        server.kill()


@dataclass(frozen=True)
class Account:
    """The bucket and its users."""

    moto: MotoServer
    bucket: S3Bucket
    source: PrometheusServer

    @property
    def files(self) -> S3Files:
        """The repository, accessed as an administrator."""
        return S3Files(self.bucket, PREFIX)

    def user(self, *rights: Statement) -> S3Bucket:
        """Create a user with these permissions; return the bucket with its credentials."""
        endpoint = self.moto.endpoint(self.moto.new_user(*rights))
        return S3Bucket(endpoint, self.bucket.name)

    def run(self, user: S3Bucket, *arguments: str, **variables: str) -> Done:
        """Run a command as a user, with IAM enforced."""
        with self.moto.enforcing_iam():
            return run_here(*arguments, env=settings(self.source, user, **variables))


@pytest.fixture
def account(moto: MotoServer, source: PrometheusServer) -> Account:
    """The bucket that the policies name, empty; the source knows of no backup in it."""
    note = source.data_dir / ".prometheus-backup" / "repositories.json"
    note.unlink(missing_ok=True)
    return Account(moto, moto.endpoint().new_bucket(BUCKET), source)


@pytest.fixture
def stocked(account: Account, stored: StoredBackups) -> Account:
    """The bucket with two real backups, and one that retention deletes."""
    copy_to(account.files, stored.root)
    put_small_backup(account.files, OLD, labels={})
    return account


def _require_exit(done: Done, code: int) -> str:
    assert done.returncode == code, f"{done.args} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout + done.stderr


def _denied(done: Done, action: str) -> None:
    """Assert that a command ended with exit 12 and named the missing action."""
    assert action in _require_exit(done, 12)


# The combined policy


def test_combined_policy_has_exactly_six_actions() -> None:
    granted = [action for s in statements("combined") for action in s["Action"]]
    assert sorted(granted) == [
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:GetObjectTagging",
        "s3:ListBucket",
        "s3:PutObject",
        "s3:PutObjectTagging",
    ]


def test_combined_policy_allows_all_daily_commands(account: Account, tmp_path: Path) -> None:
    user = account.user(*statements("combined"))
    put_small_backup(account.files, OLD, labels={})
    for command in (
        ["check"],
        ["backup"],
        ["backup"],  # the store copies unchanged files
        ["list"],
        ["show", "latest"],
        ["verify", "--all"],
        ["prune", "--dry-run"],
        ["prune"],
        ["restore", "latest", str(tmp_path / "restored")],
    ):
        _require_exit(account.run(user, *command), 0)
    assert not [k for k in account.files.all_keys() if k.startswith("backup-2020")]
    assert len(list((tmp_path / "restored").glob("*/meta.json"))) > 1


# Missing actions. A committed backup stays valid, even if its incomplete.json cannot be deleted.
NEEDS = {
    "s3:PutObject": ["check", "backup", "prune"],
    "s3:GetObject": ["check", "backup", "list", "show", "prune", "restore"],
    "s3:ListBucket": ["check", "backup", "list", "show", "verify", "prune", "restore"],
    "s3:DeleteObject": ["check", "backup", "prune"],
}


PARTLY_DONE = {
    ("s3:PutObject", "prune"),
    ("s3:DeleteObject", "prune"),
    ("s3:DeleteObject", "backup"),
}
"""Where the command goes on with the rest, and ends with exit 3."""


@pytest.mark.parametrize(
    ("action", "command"), [(action, command) for action in NEEDS for command in NEEDS[action]]
)
def test_missing_action_ends_with_exit_12_or_3_and_is_named(
    stocked: Account, tmp_path: Path, action: str, command: str
) -> None:
    arguments = {"show": ["latest"], "restore": ["latest", str(tmp_path / "restored")]}
    user = stocked.user(*statements("combined", without=action))
    done = stocked.run(user, command, *arguments.get(command, []))
    if (action, command) in PARTLY_DONE:
        assert done.returncode == 3, done.stderr
        assert action in done.stderr
    else:
        _denied(done, action)


def test_backup_without_permission_to_tag_is_denied(account: Account) -> None:
    user = account.user(*statements("combined", without="s3:PutObjectTagging"))
    _denied(account.run(user, "backup"), "s3:PutObjectTagging")
    assert not [k for k in account.files.all_keys() if k.endswith("/metadata.json")]


TAGGED = f"{PREFIX}/backup-20200615-020000/metadata.json"


def _read_tags(user: S3Bucket) -> None:
    user.tags(TAGGED)


def _write_tags(user: S3Bucket) -> None:
    tags = {"TagSet": [{"Key": "Type", "Value": "daily"}]}
    user.client.put_object_tagging(Bucket=user.name, Key=TAGGED, Tagging=tags)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "action"),
    [(_read_tags, "s3:GetObjectTagging"), (_write_tags, "s3:PutObjectTagging")],
)
def test_tags_need_their_own_actions(
    account: Account, call: Callable[[S3Bucket], None], action: str
) -> None:
    put_small_backup(account.files, OLD)
    may = account.user(*statements("combined"))
    may_not = account.user(*statements("combined", without=action))
    with account.moto.enforcing_iam():
        call(may)
        with pytest.raises(ClientError, match="AccessDenied"):
            call(may_not)


def test_combined_policy_is_limited_to_the_prefix(account: Account) -> None:
    account.bucket.put("elsewhere/object", b"x")
    user = account.user(*statements("combined"))
    with account.moto.enforcing_iam():
        for call in (
            lambda: user.get("elsewhere/object"),
            lambda: user.put("elsewhere/object", b"y"),
            lambda: user.delete("elsewhere/object"),
        ):
            with pytest.raises(ClientError, match="AccessDenied"):
                call()
    assert account.bucket.get("elsewhere/object") == b"x"


# One job, one policy


def test_writer_can_back_up(stocked: Account) -> None:
    user = stocked.user(*statements("writer"))
    before = set(stocked.files.all_keys())
    _require_exit(stocked.run(user, "check"), 0)
    _require_exit(stocked.run(user, "backup", RETENTION_DAILY="36500"), 0)
    _require_exit(stocked.run(user, "backup", RETENTION_DAILY="36500"), 0)
    keys = set(stocked.files.all_keys())
    assert before < keys
    assert not [k for k in keys if k.endswith("/incomplete.json")]


def test_writer_cannot_delete_backups(stocked: Account) -> None:
    user = stocked.user(*statements("writer"))
    before = set(stocked.files.all_keys())
    log = _require_exit(
        stocked.run(user, "backup"), 3
    )  # committed, but retention could not be applied
    assert "retention" in log
    assert "s3:DeleteObject" in log
    assert "s3:DeleteObject" in _require_exit(stocked.run(user, "prune"), 3)
    kept = {k for k in before if not k.startswith("backup-2020")}
    assert kept <= set(stocked.files.all_keys())


def test_pruner_can_delete_expired_backups(stocked: Account) -> None:
    user = stocked.user(*statements("pruner"))
    before = set(stocked.files.all_keys())
    _require_exit(stocked.run(user, "list"), 0)
    _require_exit(stocked.run(user, "prune"), 0)
    gone = before - set(stocked.files.all_keys())
    assert gone == {k for k in before if k.startswith("backup-2020")}


def test_pruner_can_hold_and_release_and_reads_what_a_rotation_left(stocked: Account) -> None:
    verifier, user = stocked.user(*statements("verifier")), stocked.user(*statements("pruner"))
    _require_exit(stocked.run(verifier, "verify", "--all", "--subset=next/2"), 0)
    _require_exit(stocked.run(user, "hold", "2020-06-15", "--reason=audit"), 0)
    held = set(stocked.files.all_keys())
    _require_exit(stocked.run(user, "prune"), 0)
    assert set(stocked.files.all_keys()) == held
    _require_exit(stocked.run(user, "release", "2020-06-15"), 0)
    _require_exit(stocked.run(user, "prune"), 0)
    assert not [k for k in stocked.files.all_keys() if k.startswith(("backup-2020", "backup-1970"))]


def test_pruner_cannot_read_samples_or_write_backups(stocked: Account, tmp_path: Path) -> None:
    user = stocked.user(*statements("pruner"))
    _denied(stocked.run(user, "restore", "latest", str(tmp_path / "restored")), "s3:GetObject")
    _denied(stocked.run(user, "backup"), "s3:PutObject")
    with stocked.moto.enforcing_iam():
        for name in ("metadata.json", "verification-size.json", "block/index"):
            with pytest.raises(ClientError, match="AccessDenied"):
                user.put(f"{PREFIX}/backup-20200615-020000/{name}", b"{}")


def test_restorer_can_restore_and_change_nothing(stocked: Account, tmp_path: Path) -> None:
    user = stocked.user(*statements("restorer"))
    before = {k: stocked.files.get(k) for k in stocked.files.all_keys()}
    _require_exit(stocked.run(user, "list"), 0)
    _require_exit(stocked.run(user, "show", "latest"), 0)
    _require_exit(stocked.run(user, "restore", "latest", str(tmp_path / "restored")), 0)
    _denied(stocked.run(user, "backup"), "s3:PutObject")
    assert "s3:PutObject" in _require_exit(stocked.run(user, "prune"), 3)
    with stocked.moto.enforcing_iam():
        for key in before:
            with pytest.raises(ClientError, match="AccessDenied"):
                user.delete(f"{PREFIX}/{key}")
    assert {k: stocked.files.get(k) for k in stocked.files.all_keys()} == before


def test_verifier_can_only_write_its_results(
    stocked: Account, prometheus_2: PrometheusBinaries, tmp_path: Path
) -> None:
    user = stocked.user(*statements("verifier"))
    before = {k: stocked.files.get(k) for k in stocked.files.all_keys()}
    _require_exit(stocked.run(user, "verify", "latest"), 0)
    _require_exit(stocked.run(user, "verify", "latest", "--subset", "next/2"), 0)
    drill = ("drill", "latest", "--scratch", str(tmp_path))
    done = stocked.run(user, *drill, PROMETHEUS_BINARY=str(prometheus_2.prometheus))
    assert "cannot record" not in done.stderr
    after = {k: stocked.files.get(k) for k in stocked.files.all_keys()}
    assert sorted(k.rpartition("/")[2] for k in after.keys() - before.keys()) == [
        "rotation-checksum.json",
        "verification-checksum.json",
        "verification-drill.json",
    ]
    assert {k: after[k] for k in before} == before
    _denied(stocked.run(user, "backup"), "s3:PutObject")
    assert "s3:PutObject" in _require_exit(stocked.run(user, "prune"), 3)


# Layout archive


@pytest.fixture
def archived(account: Account) -> Account:
    """The bucket with two backups in layout archive, made by the writer."""
    writer = account.user(*statements("writer"))
    for _ in range(2):
        done = account.run(writer, "backup", LAYOUT="archive", RETENTION_DAILY="36500")
        _require_quiet(done)
    assert [k for k in account.files.all_keys() if k.startswith("archive/")]
    assert not [k for k in account.files.all_keys() if k.startswith("archive/claims/")]
    return account


def _require_quiet(done: Done) -> str:
    """Assert that a command succeeded and was denied nothing, also not in passing."""
    log = _require_exit(done, 0)
    assert "warning" not in log, log
    assert "denied" not in log.lower(), log
    return log


def test_combined_policy_allows_all_daily_commands_in_layout_archive(
    account: Account, tmp_path: Path
) -> None:
    user = account.user(*statements("combined"))
    put_small_backup(account.files, OLD, labels={})
    for command in (
        ["backup"],
        ["backup"],
        ["list"],
        ["verify", "--all"],
        ["prune"],
        ["restore", "--history", str(tmp_path / "history")],
        ["metrics"],
    ):
        variables = {"LAYOUT": "archive", "RETENTION_HISTORY": "400d"}
        _require_quiet(account.run(user, *command, **variables))


@pytest.mark.parametrize("role", ["restorer", "verifier", "pruner", "writer"])
def test_each_role_can_look_at_an_archive(archived: Account, role: str) -> None:
    user = archived.user(*statements(role))
    for command in (
        ["list"],
        ["metrics"],
        ["show", "latest"],
        ["timeline"],
        ["prune", "--dry-run"],
    ):
        _require_quiet(archived.run(user, *command))


def test_restorer_can_restore_an_archive(archived: Account, tmp_path: Path) -> None:
    user = archived.user(*statements("restorer"))
    before = set(archived.files.all_keys())
    _require_quiet(archived.run(user, "restore", "latest", str(tmp_path / "one")))
    _require_quiet(archived.run(user, "restore", "--history", str(tmp_path / "history")))
    assert set(archived.files.all_keys()) == before


def test_verifier_can_record_its_results_about_an_archive(archived: Account) -> None:
    user = archived.user(*statements("verifier"))
    before = {k: archived.files.get(k) for k in archived.files.all_keys()}
    _require_quiet(archived.run(user, "verify", "--all"))
    assert [k for k in archived.files.all_keys() if "/verification-" in k and k not in before]
    with archived.moto.enforcing_iam():
        for key in before:
            if key.startswith("archive/") and not key.startswith("archive/catalog/"):
                with pytest.raises(ClientError, match="AccessDenied"):
                    user.delete(f"{PREFIX}/{key}")


def test_writer_deletes_nothing_of_an_archive(archived: Account) -> None:
    user, keys = archived.user(*statements("writer")), archived.files.all_keys()
    with archived.moto.enforcing_iam():
        for key in keys:
            if not key.startswith("archive/catalog/"):
                with pytest.raises(ClientError, match="AccessDenied"):
                    user.delete(f"{PREFIX}/{key}")


def test_pruner_deletes_from_an_archive_and_reads_no_samples(
    archived: Account, tmp_path: Path
) -> None:
    user = archived.user(*statements("pruner"))
    before = set(archived.files.all_keys())
    put_small_backup(archived.files, OLD, labels={})
    log = _require_exit(archived.run(user, "prune", "--retention-daily=1"), 0)
    assert "denied" not in log.lower(), log
    gone = before - set(archived.files.all_keys())
    assert not [k for k in gone if k.endswith("/index")], "marked first, deleted a day later"
    _denied(archived.run(user, "restore", "latest", str(tmp_path / "one")), "s3:GetObject")
