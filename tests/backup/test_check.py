"""The preflight against real servers: each fault has its line, its fix and its exit code."""

import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import free_port
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.s3 import S3Bucket
from devtools.seaweedfs import READ_ONLY, SeaweedFS
from prometheus_backup.backup.check import CheckReport, check
from prometheus_backup.clock import SystemClock
from prometheus_backup.model import PutOptions
from prometheus_backup.prometheus.access import Access
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from tests.support.memory_store import MemoryStore
from tests.support.runs import FakeClock, cli, settings, with_read_only, without_privileges
from tests.support.store_wrappers import StoreWrapper
from tests.support.stored_backups import LocalFiles, StoredBackups, json_of, run_here

Lines = dict[str, dict[str, Any]]

REPOSITORY_PROBES = (
    "write",
    "read",
    "conditional create",
    "block files",
    "copy",
    "clock",
    "delete",
)


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory, prometheus_3: PrometheusBinaries, tsdb_blocks: Path
) -> Iterator[PrometheusServer]:
    """A Prometheus that these tests only read."""
    data = tmp_path_factory.mktemp("check") / "data"
    shutil.copytree(tsdb_blocks, data)
    with PrometheusServer(prometheus_3, data) as server:
        yield server
        server.kill()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "repository").mkdir()
    return tmp_path / "repository"


def checked(env: dict[str, str], *, code: int) -> Lines:
    """Run `check --json`, which must exit with `code`; return its lines by subject."""
    document = json_of(run_here("check", "--json", env=env), code=code)
    assert document["ok"] is (code == 0)
    return {line["subject"]: line for line in document["checks"]}


def failed(lines: Lines) -> set[str]:
    """The failed subjects; each must have a fix, and no other line may have one."""
    for line in lines.values():
        assert bool(line["fix"]) is not line["ok"], line
    return {subject for subject, line in lines.items() if not line["ok"]}


def test_no_faults_exit_0_and_leave_no_probe(
    prometheus: PrometheusServer, s3_bucket: S3Bucket
) -> None:
    done = run_here("check", env=settings(prometheus, s3_bucket))
    lines = checked(settings(prometheus, s3_bucket), code=0)

    assert done.returncode == 0, done.stdout
    rows = done.stdout.splitlines()
    assert all(row.startswith("ok ") for row in rows[: len(lines)])
    assert rows[len(lines)].startswith("PROMETHEUS_URL ")
    assert s3_bucket.keys() == []
    assert failed(lines) == set()
    assert [*lines] == [
        "settings",
        "prometheus: reachable and ready",
        "data directory: readable",
        "prometheus: a server, not an agent",
        "prometheus: Admin API on",
        "prometheus: one instance at the URL",
        "data directory: the right one",
        "data directory: snapshots can be removed",
        "data directory: room for the head block",
        "repository: reachable",
        *(f"repository: {subject}" for subject in REPOSITORY_PROBES),
        "repository: backups",
    ]
    assert lines["repository: backups"]["detail"] == "0 found, 0 of them good"
    assert prometheus.binaries.version in lines["prometheus: reachable and ready"]["detail"]


def test_a_fault_is_printed_as_a_fail_line_with_a_fix(source: PrometheusServer, root: Path) -> None:
    done = run_here("check", env=settings(source, root, RETENTION_DAILY="0") | _NO_RETENTION)

    assert done.returncode == 2
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith("FAIL  settings: ")
    assert second.strip().startswith("fix: ")


_NO_RETENTION = {"RETENTION_DAILY": "0", "RETENTION_MONTHLY": "0", "RETENTION_YEARLY": "0"}


def test_wrong_settings_exit_2_and_everything_else_is_checked(
    source: PrometheusServer, root: Path
) -> None:
    lines = checked(settings(source, root, **_NO_RETENTION), code=2)

    assert failed(lines) == {"settings"}
    assert "repository: backups" in lines
    assert "data directory: the right one" in lines


def test_an_unreachable_prometheus_exits_20_and_the_repository_is_checked(
    source: PrometheusServer, root: Path
) -> None:
    env = settings(source, root, PROMETHEUS_URL=f"http://127.0.0.1:{free_port()}")

    lines = checked(env, code=20)

    assert failed(lines) == {"prometheus: reachable and ready"}
    assert "PROMETHEUS_URL" in lines["prometheus: reachable and ready"]["fix"]
    assert lines["repository: delete"]["ok"]


def test_a_disabled_admin_api_exits_21(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, data_dir: Path, root: Path
) -> None:
    server = start_prometheus(prometheus_3, data_dir, PrometheusOptions(admin_api=False))

    lines = checked(settings(server, root), code=21)

    assert failed(lines) == {"prometheus: Admin API on"}
    assert "--web.enable-admin-api" in lines["prometheus: Admin API on"]["fix"]
    assert "SNAPSHOT_MODE=blocks" in lines["prometheus: Admin API on"]["fix"]


def test_mode_blocks_needs_no_admin_api_and_names_the_better_mode_if_it_is_on(
    source: PrometheusServer,
    start_prometheus: PrometheusFleet,
    prometheus_2: PrometheusBinaries,
    data_dir: Path,
    root: Path,
) -> None:
    blocks = settings(source, root, SNAPSHOT_MODE="blocks")
    lines = checked(blocks, code=0)
    assert "SNAPSHOT_MODE=admin-api would save it" in lines["prometheus: snapshot mode"]["detail"]
    assert lines["data directory: blocks stay readable"]["detail"] == "yes, 4 blocks can be linked"

    without = start_prometheus(prometheus_2, data_dir, PrometheusOptions(admin_api=False))
    lines = checked(settings(without, root, SNAPSHOT_MODE="blocks"), code=0)
    detail = lines["prometheus: snapshot mode"]["detail"]
    assert "what is only in memory is left out" in detail
    assert "admin-api" not in detail

    done = cli(
        "check",
        env=settings(without, root, SNAPSHOT_MODE="blocks"),
        prefix=with_read_only(data_dir),
    )
    assert done.returncode == 0, done.stdout
    assert "16 files of 4 blocks can be held open" in done.stdout


def test_mode_blocks_warns_if_prometheus_does_not_answer_and_refuses_another_one(
    source: PrometheusServer, data_dir: Path, root: Path
) -> None:
    unreachable = settings(source, root, SNAPSHOT_MODE="blocks")
    unreachable["PROMETHEUS_URL"] = f"http://127.0.0.1:{free_port()}"
    lines = checked(unreachable, code=3)
    assert failed(lines) == {"prometheus: snapshot mode"}
    assert "without its version" in lines["prometheus: snapshot mode"]["detail"]

    other = settings(source, root, SNAPSHOT_MODE="blocks")
    shutil.rmtree(min(path.parent for path in data_dir.glob("*/meta.json")))
    lines = checked(other | {"PROMETHEUS_DATA_DIR": str(data_dir)}, code=2)
    assert failed(lines) == {"prometheus: snapshot mode"}


def test_agent_mode_exits_20(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, root: Path
) -> None:
    server = start_prometheus(prometheus_3, None, PrometheusOptions(agent=True))

    lines = checked(settings(server, root), code=20)

    assert "prometheus: a server, not an agent" in failed(lines)
    assert "data directory: the right one" not in lines


def test_a_missing_data_directory_exits_2(source: PrometheusServer, root: Path) -> None:
    env = settings(source, root, PROMETHEUS_DATA_DIR="/nowhere/at/all")

    lines = checked(env, code=2)

    assert failed(lines) == {"data directory: readable"}
    assert "PROMETHEUS_DATA_DIR" in lines["data directory: readable"]["fix"]


def test_the_data_directory_of_another_prometheus_exits_2(
    source: PrometheusServer, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()

    lines = checked(settings(source, root, PROMETHEUS_DATA_DIR=str(tmp_path / "other")), code=2)

    assert failed(lines) == {"data directory: the right one"}


def test_a_read_only_data_directory_exits_3_like_the_backup(
    source: PrometheusServer, tsdb_blocks: Path, root: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "data"
    shutil.copytree(tsdb_blocks, closed)
    closed.chmod(0o555)
    env = settings(source, root, PROMETHEUS_DATA_DIR=str(closed))

    # Root may write anywhere; without its capabilities, file permissions apply.
    document = json_of(cli("check", "--json", env=env, prefix=without_privileges()), code=3)

    lines = {line["subject"]: line for line in document["checks"]}
    assert failed(lines) == {"data directory: snapshots can be removed"}


class Usage(NamedTuple):
    """The result of shutil.disk_usage."""

    total: int
    used: int
    free: int


def test_no_space_for_the_head_block_exits_22(
    source: PrometheusServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.fill_head()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 10**9, len(str(place))))

    lines = checked(settings(source, root), code=22)

    assert failed(lines) == {"data directory: room for the head block"}


def test_a_missing_bucket_exits_10(source: PrometheusServer, seaweedfs: SeaweedFS) -> None:
    absent = S3Bucket(seaweedfs.endpoint(), "no-such-bucket")

    lines = checked(settings(source, absent), code=10)

    assert failed(lines) == {"repository: reachable"}
    assert lines["data directory: the right one"]["ok"]


def test_a_read_only_repository_exits_12(
    source: PrometheusServer, s3_bucket: S3Bucket, seaweedfs: SeaweedFS
) -> None:
    reader = S3Bucket(seaweedfs.endpoint(READ_ONLY), s3_bucket.name)

    lines = checked(settings(source, reader), code=12)

    assert failed(lines) == {"repository: write"}
    assert (
        "s3:PutObject" in lines["repository: write"]["detail"] + lines["repository: write"]["fix"]
    )
    assert lines["repository: backups"]["ok"]


def test_an_unreachable_store_exits_13(source: PrometheusServer, root: Path) -> None:
    env = settings(source, root) | _no_store()

    assert failed(checked(env, code=13)) == {"repository: reachable"}


def _no_store() -> dict[str, str]:
    """The variables of an S3 repository at an address where nothing listens."""
    return {
        "REPOSITORY": "s3://bucket/prefix",
        "S3_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def test_an_unreadable_manifest_exits_41_and_a_newer_one_14(
    source: PrometheusServer, repository_files: LocalFiles, stored: StoredBackups
) -> None:
    manifest = repository_files.get(f"{stored.first}/metadata.json")
    for body, code in ((manifest[:99], 41), (manifest.replace(_VERSION, _NEWER), 14)):
        repository_files.put(f"{stored.first}/metadata.json", body)

        lines = checked(settings(source, repository_files.root), code=code)

        assert failed(lines) == {"repository: backups"}
        assert stored.first in lines["repository: backups"]["detail"]


_VERSION, _NEWER = b'"format_version": 1', b'"format_version": 3'


def test_all_faults_are_reported_and_the_first_sets_the_exit_code(
    source: PrometheusServer, root: Path
) -> None:
    env = settings(
        source,
        root,
        PROMETHEUS_URL=f"http://127.0.0.1:{free_port()}",
        PROMETHEUS_DATA_DIR="/nowhere",
        **_no_store(),
    )

    assert failed(checked(env, code=20)) == {
        "prometheus: reachable and ready",
        "data directory: readable",
        "repository: reachable",
    }


def _check_store(
    source: PrometheusServer, store: ObjectStore, clock: FakeClock | SystemClock
) -> CheckReport:
    return check(
        settings=lambda: "fine",
        connect=lambda: PrometheusClient(Access(url=source.url)),
        data_dir=source.data_dir,
        open_repository=lambda: Repository(store, clock=clock),
        run_id="this",
        clock=clock,
    )


class _Overwriting(StoreWrapper):
    """A store without conditional writes, as old S3-compatible ones are."""

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        self.inner.put_small(key, body, options=options)


class _Garbling(StoreWrapper):
    """A store, or a proxy in front of it, that modifies objects."""

    def get(self, key: str, *, limit: int) -> bytes:
        return self.inner.get(key, limit=limit).swapcase()


class _Keeping(StoreWrapper):
    """A store that reports a deletion but keeps the object, as with an object lock."""

    def delete(self, keys: Sequence[str]) -> None:
        del keys


@pytest.mark.parametrize(
    ("kind", "subject", "code"),
    [
        (_Overwriting, "repository: conditional create", 3),
        (_Garbling, "repository: read", 40),
        (_Keeping, "repository: delete", 3),
    ],
)
def test_a_store_that_breaks_its_contract_is_reported_and_the_rest_is_checked(
    source: PrometheusServer, root: Path, kind: type[StoreWrapper], subject: str, code: int
) -> None:
    report = _check_store(source, kind(LocalStore(root)), SystemClock())

    assert [line.subject for line in report.lines if not line.ok] == [subject]
    assert all(line.fix for line in report.lines if not line.ok)
    assert report.exit_code == code
    subjects = [line.subject for line in report.lines]
    assert [s for s in subjects if s.startswith("repository: ")][1:-1] == [
        f"repository: {probe}" for probe in REPOSITORY_PROBES
    ]
    if kind is not _Keeping:
        assert list(root.iterdir()) == []


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_differs_from_the_stores_is_reported(
    source: PrometheusServer, hours: int
) -> None:
    wrong = FakeClock(datetime.now(UTC) + timedelta(hours=hours))

    report = _check_store(source, MemoryStore(), wrong)

    (line,) = [line for line in report.lines if not line.ok]
    assert line.subject == "repository: clock"
    assert "NTP" in line.fix
    assert report.exit_code == 3
