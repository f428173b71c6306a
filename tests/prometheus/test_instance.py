"""Sources that cannot be backed up are refused before anything is requested or written.

These tests run the whole `backup`: it must not take a snapshot or write to the repository or
the data directory.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import free_port
from devtools.prometheus import (
    PASSWORD,
    USERNAME,
    PrometheusFleet,
    PrometheusOptions,
    PrometheusServer,
)
from prometheus_backup.errors import (
    AdminApiDisabled,
    BackupToolError,
    SnapshotUnusable,
    SourceUnavailable,
    UsageError,
)
from prometheus_backup.model import Outcome
from prometheus_backup.prometheus.access import Access
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.instance import head_block_estimate
from tests.support.certificates import self_signed
from tests.support.contents import keys, live_blocks, traces
from tests.support.memory_store import MemoryStore
from tests.support.runs import FakeClock, cli, settings, take_backup
from tests.support.sources import HTML, FakePrometheus, Proxy

QUICK = 100.0
"""Speed of the clock in tests that retry before they refuse."""


def refusal(source: Access | PrometheusServer, data_dir: Path) -> BackupToolError:
    """The error of a run that must fail without changing anything."""
    store = MemoryStore()
    with pytest.raises(BackupToolError) as caught:
        take_backup(source, store, data_dir=data_dir, clock=FakeClock(speed=QUICK))
    assert keys(store) == []
    assert traces(data_dir) == [], "nothing is created before the directory proved right"
    return caught.value


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    """A file with the password and the trailing newline that editors add."""
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    return str(path)


def test_prometheus_that_is_down(data_dir: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    error = refusal(Access(url), data_dir)
    assert isinstance(error, SourceUnavailable)
    assert error.exit_code == 20
    assert error.message.startswith(f"cannot reach Prometheus at {url}: ")
    assert error.hint == "check PROMETHEUS_URL, and that Prometheus is running and ready"


def test_prometheus_that_is_not_ready(data_dir: Path) -> None:
    with FakePrometheus({"/-/ready": (503, "Service Unavailable")}) as server:
        error = refusal(Access(server.url), data_dir)
        assert server.effectful_requests == []
    assert error.exit_code == 20
    assert error.message.startswith(f"cannot use Prometheus at {server.url}: it is not ready")
    assert "/-/ready" in error.hint


def test_admin_api_off(
    prometheus_binaries: PrometheusBinaries, start_prometheus: PrometheusFleet, data_dir: Path
) -> None:
    options = PrometheusOptions(admin_api=False)
    error = refusal(start_prometheus(prometheus_binaries, data_dir, options), data_dir)
    assert isinstance(error, AdminApiDisabled)
    assert error.exit_code == 21
    assert error.message == "Failed to create snapshot: the Admin API is disabled"
    assert "start Prometheus with --web.enable-admin-api" in error.hint
    assert "SNAPSHOT_MODE=blocks" in error.hint


def test_agent_mode(
    prometheus_binaries: PrometheusBinaries, start_prometheus: PrometheusFleet
) -> None:
    options = PrometheusOptions(agent=True, scrape_interval=None)
    server = start_prometheus(prometheus_binaries, None, options)
    error = refusal(server, server.data_dir)
    assert isinstance(error, SourceUnavailable)
    assert error.exit_code == 20
    assert error.message.startswith("cannot back up this Prometheus: it runs in agent mode")


@pytest.fixture
def guarded(
    prometheus_binaries: PrometheusBinaries, start_prometheus: PrometheusFleet, data_dir: Path
) -> PrometheusServer:
    """A Prometheus that requires a user name and a password."""
    return start_prometheus(prometheus_binaries, data_dir, PrometheusOptions(basic_auth=True))


def test_basic_auth_without_or_with_wrong_credentials(
    guarded: PrometheusServer, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-password")
    for access in (
        Access(guarded.url),
        Access(guarded.url, username=USERNAME),
        Access(guarded.url, username=USERNAME, password_file=str(wrong)),
    ):
        error = refusal(access, guarded.data_dir)
        assert error.exit_code == 20
        assert error.message == f"cannot use Prometheus at {guarded.url}: access denied (HTTP 401)"
        assert "PROMETHEUS_PASSWORD_FILE" in error.hint
        assert "not-the-password" not in error.message + error.hint


def test_basic_auth_with_username_and_password_file_works(
    guarded: PrometheusServer, password_file: str
) -> None:
    access = Access(guarded.url, username=USERNAME, password_file=password_file)
    assert take_backup(access, MemoryStore(), data_dir=guarded.data_dir).outcome is Outcome.DONE


def test_the_command_line_takes_the_password_from_the_file_and_never_shows_it(
    guarded: PrometheusServer, password_file: str, tmp_path: Path
) -> None:
    env = settings(
        guarded,
        tmp_path / "repository",
        PROMETHEUS_USERNAME=USERNAME,
        PROMETHEUS_PASSWORD_FILE=password_file,
    )
    done = cli("backup", "--log-level", "debug", env=env)
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    for path in (tmp_path / "repository").rglob("*.json"):
        assert PASSWORD not in path.read_text()


def test_a_bearer_token_is_accepted(source: PrometheusServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cr3t-token\n")
    with Proxy(source.url, bearer="s3cr3t-token") as proxy:
        assert refusal(Access(proxy.url), source.data_dir).exit_code == 20
        access = Access(proxy.url, bearer_token_file=str(token))
        report = take_backup(access, MemoryStore(), data_dir=source.data_dir)
    assert report.outcome is Outcome.DONE
    assert report.manifest.prometheus_url == proxy.url


def test_a_secret_file_that_cannot_be_read(tmp_path: Path) -> None:
    for access in (
        Access("http://127.0.0.1:1", username="u", password_file=str(tmp_path / "absent")),
        Access("http://127.0.0.1:1", bearer_token_file=str(tmp_path)),
    ):
        with pytest.raises(SourceUnavailable, match=r"cannot read PROMETHEUS_\w+_FILE /") as caught:
            PrometheusClient(access)
        assert caught.value.exit_code == 20


def test_a_route_prefix_works_and_a_missing_one_is_reported(
    prometheus_binaries: PrometheusBinaries, start_prometheus: PrometheusFleet, data_dir: Path
) -> None:
    options = PrometheusOptions(route_prefix="/prom")
    server = start_prometheus(prometheus_binaries, data_dir, options)
    error = refusal(Access(server.url.removesuffix("/prom")), data_dir)
    assert error.exit_code == 20
    assert "path prefix" in error.hint
    # A trailing slash is accepted.
    report = take_backup(Access(server.url + "/"), MemoryStore(), data_dir=data_dir)
    assert report.outcome is Outcome.DONE
    assert report.manifest.prometheus_url == server.url


def test_a_proxy_that_returns_html(data_dir: Path) -> None:
    paths = ("/-/ready", "/api/v1/status/flags")
    with FakePrometheus(dict.fromkeys(paths, (200, HTML))) as server:
        error = refusal(Access(server.url), data_dir)
        assert server.effectful_requests == []
    assert error.exit_code == 20
    assert error.message.startswith(f"cannot use Prometheus at {server.url}: ")
    assert "did not respond like Prometheus" in error.message
    assert "PROMETHEUS_URL" in error.hint


def test_a_data_directory_that_is_absent(source: PrometheusServer, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    error = refusal(source, absent)
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    assert error.message == f"cannot read data directory {absent}: no such directory"
    assert "PROMETHEUS_DATA_DIR" in error.hint
    assert not absent.exists()


def test_the_data_directory_of_another_prometheus_is_detected_by_the_loaded_blocks(
    prometheus: PrometheusServer, tsdb_blocks: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(live_blocks(tsdb_blocks)[0], other / "01JJ5W0B8ZC6X3M1S4T9Q2V7KD")
    error = refusal(prometheus, other)
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    assert error.message.startswith(f"cannot use data directory {other}: ")
    assert "stores its data elsewhere" in error.message
    assert "PROMETHEUS_DATA_DIR" in error.hint


def test_a_snapshot_in_another_directory_is_detected_if_the_number_of_blocks_matches(
    start_prometheus: PrometheusFleet,
    prometheus_2: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    # Before 3.6, only the number of blocks is known, and another replica can have the same number.
    server = start_prometheus(prometheus_2, data_dir)
    other = tmp_path / "other"
    write_openmetrics_blocks(other, prometheus_2.promtool, BlockSpec(seed=1))
    store = MemoryStore()
    with pytest.raises(SnapshotUnusable, match=r"^Failed to create snapshot: ") as caught:
        take_backup(server, store, data_dir=other)
    assert caught.value.exit_code == 22
    (name,) = (path.name for path in (data_dir / "snapshots").iterdir())
    assert f"Prometheus created '{name}', but it is not in {other / 'snapshots'}" in str(
        caught.value
    )
    assert "another replica answered" in caught.value.hint
    assert [key.rpartition("/")[2] for key in keys(store)] == ["incomplete.json"]


def test_from_3_6_on_each_loaded_block_must_be_in_the_directory(data_dir: Path) -> None:
    ulids = [block.name for block in live_blocks(data_dir)]
    foreign = "01JJ5W0B8ZC6X3M1S4T9Q2V7KD"

    def loaded(*names: str) -> dict[str, tuple[int, object]]:
        return {"/api/v1/status/tsdb/blocks": (200, {"blocks": [{"ulid": n} for n in names]})}

    with FakePrometheus(loaded(ulids[0], foreign)) as server:
        error = refusal(Access(server.url), data_dir)
        assert server.effectful_requests == []
    assert error.exit_code == 2
    assert "it has loaded blocks that are not in this directory" in error.message
    # Fewer loaded blocks than on disk prove nothing: the run continues until the snapshot request.
    with FakePrometheus(loaded(*ulids[:2])) as server:
        with pytest.raises(SourceUnavailable):
            take_backup(Access(server.url), MemoryStore(), data_dir=data_dir)
        assert len(server.snapshot_requests) == 1


@pytest.fixture
def two(
    prometheus_binaries: PrometheusBinaries, start_prometheus: PrometheusFleet
) -> Iterator[Proxy]:
    """One URL with two servers that take turns, as behind a Service."""
    options = PrometheusOptions(scrape_interval=None)
    servers = [start_prometheus(prometheus_binaries, None, options) for _ in range(2)]
    with Proxy(*(server.url for server in servers)) as proxy:
        yield proxy


def test_two_servers_behind_one_url(two: Proxy, data_dir: Path) -> None:
    error = refusal(Access(two.url), data_dir)
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    assert error.message == f"cannot use {two.url}: 2 different Prometheus servers respond there"
    assert "not to a Service" in error.hint
    assert two.effectful_requests == []


def test_tls_with_the_ca_file_and_not_without(source: PrometheusServer, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with Proxy(source.url, tls=certificate.server_context()) as proxy:
        error = refusal(Access(proxy.url), source.data_dir)
        assert error.exit_code == 20
        assert error.message.startswith(f"cannot reach Prometheus at {proxy.url}: ")
        assert "certificate" in error.message.lower()
        env = settings(
            source,
            tmp_path / "repository",
            PROMETHEUS_URL=proxy.url,
            PROMETHEUS_CA_FILE=str(certificate.certificate),
        )
        done = cli("backup", env=env)
        assert done.returncode == 0, done.stderr


def test_an_invalid_ca_file(tmp_path: Path) -> None:
    not_pem = tmp_path / "ca.pem"
    not_pem.write_text("no certificate\n")
    for path in (not_pem, tmp_path / "absent.pem"):
        with pytest.raises(SourceUnavailable, match=f"cannot read PROMETHEUS_CA_FILE {path}: "):
            PrometheusClient(Access("https://127.0.0.1:1", ca_file=str(path)))


def test_the_head_is_estimated_from_its_series_and_chunks(source: PrometheusServer) -> None:
    with PrometheusClient(Access(source.url)) as client:
        small = head_block_estimate(client.status())
        source.fill_head(series=500, metric="many")
        large = head_block_estimate(client.status())
    assert small > 0
    assert large - small > 500 * 300
