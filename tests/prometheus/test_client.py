"""How the client handles responses of Prometheus and of other servers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from prometheus_backup.errors import (
    AdminApiDisabled,
    BackupToolError,
    SnapshotUnusable,
    SourceUnavailable,
)
from prometheus_backup.prometheus.access import Access
from prometheus_backup.prometheus.client import (
    PrometheusClient,
    QueryFailed,
    SnapshotConnectionLost,
)
from prometheus_backup.prometheus.loading import reload_timeout
from prometheus_backup.prometheus.status import SourceStatus
from tests.support.contents import live_blocks
from tests.support.sources import HTML, SNAPSHOT_PATH, FakePrometheus, Proxy


def status(url: str) -> SourceStatus:
    """The status of the Prometheus at a URL."""
    with PrometheusClient(Access(url)) as client:
        return client.status()


def error(kind: str, message: str) -> dict[str, str]:
    """An error response of Prometheus."""
    return {"status": "error", "errorType": kind, "error": message}


def test_status_of_a_real_prometheus(prometheus: PrometheusServer) -> None:
    found = status(prometheus.url)
    build, runtime = prometheus.get("status/buildinfo"), prometheus.get("status/runtimeinfo")
    assert found.version == build["version"]
    assert found.version.startswith(prometheus.binaries.version)
    assert found.revision == build["revision"]
    assert found.start_time == runtime["startTime"]
    assert found.hostname == runtime.get("hostname")
    assert found.retention == "10y"
    assert (found.admin_api, found.agent) == (True, False)
    assert found.storage_path == str(prometheus.data_dir)
    assert found.out_of_order is None
    assert found.head_series >= 20
    assert found.head_chunks >= found.head_series
    assert abs(found.clock - datetime.now(UTC)) < timedelta(minutes=1)


def test_loaded_blocks_by_name_from_3_6_on_and_by_number_always(
    prometheus: PrometheusServer,
) -> None:
    names = {block.name for block in live_blocks(prometheus.data_dir)}
    version = tuple(int(part) for part in prometheus.binaries.version.split(".")[:2])
    with PrometheusClient(Access(prometheus.url)) as client:
        assert client.loaded_blocks() == (names if version >= (3, 6) else None)
        assert client.count_loaded_blocks() == len(names) == 4


@pytest.mark.parametrize(
    ("blocks", "names"), [([{"ulid": "A"}], frozenset("A")), ([], frozenset()), (None, frozenset())]
)
def test_loaded_blocks_may_be_empty(blocks: Any, names: frozenset[str]) -> None:
    answers = {"/api/v1/status/tsdb/blocks": (200, {"blocks": blocks})}
    with FakePrometheus(answers) as server, PrometheusClient(Access(server.url)) as client:
        assert client.loaded_blocks() == names


def test_metrics_without_the_number_of_blocks() -> None:
    answers = {"/metrics": (200, "go_goroutines 7\n")}
    with FakePrometheus(answers) as server, PrometheusClient(Access(server.url)) as client:
        assert client.count_loaded_blocks() is None


@pytest.mark.parametrize(
    ("yaml", "window"),
    [
        ("global: {}\n", None),
        ("storage:\n  tsdb:\n    out_of_order_time_window: 0s\n", None),
        ("storage:\n  tsdb:\n    out_of_order_time_window: 1h30m\n", "1h30m"),
    ],
)
def test_the_out_of_order_window_is_read_from_the_configuration(
    yaml: str, window: str | None
) -> None:
    with FakePrometheus({"/api/v1/status/config": (200, {"yaml": yaml})}) as server:
        assert status(server.url).out_of_order == window


@pytest.mark.parametrize(
    ("flags", "seconds", "wait"),
    [({}, 60, 180), ({"storage.tsdb.block-reload-interval": "10m"}, 600, 1800)],
)
def test_waiting_follows_the_interval_at_which_blocks_are_loaded(
    flags: dict[str, str], seconds: int, wait: int
) -> None:
    with FakePrometheus({"/api/v1/status/flags": (200, flags)}) as server:
        interval = status(server.url).reload_interval
    assert interval == timedelta(seconds=seconds)
    assert reload_timeout(interval) == timedelta(seconds=wait)


@pytest.mark.parametrize(
    "flags",
    [{"agent": "true"}, {"enable-feature": "agent"}, {"enable-feature": "exemplar-storage,agent"}],
)
def test_agent_mode_is_detected_by_either_flag_and_has_no_head(flags: dict[str, str]) -> None:
    answers = {
        "/api/v1/status/flags": (200, flags),
        "/api/v1/status/tsdb": (422, error("execution", "unavailable with Prometheus Agent")),
    }
    with FakePrometheus(answers) as server:
        found = status(server.url)
    assert (found.agent, found.head_series, found.head_chunks) == (True, 0, 0)


def test_a_feature_with_agent_in_its_name_is_not_agent_mode() -> None:
    flags = {"agent": "false", "enable-feature": "no-agent-at-all"}
    with FakePrometheus({"/api/v1/status/flags": (200, flags)}) as server:
        assert not status(server.url).agent


def test_instances_are_counted_over_separate_connections(
    prometheus_binaries: PrometheusBinaries, start_prometheus: PrometheusFleet
) -> None:
    options = PrometheusOptions(scrape_interval=None)
    servers = [start_prometheus(prometheus_binaries, None, options) for _ in range(2)]
    for urls in ([servers[0].url], [server.url for server in servers]):
        with Proxy(*urls) as proxy, PrometheusClient(Access(proxy.url)) as client:
            assert client.instances(tries=3) == len(urls)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ((200, HTML), "did not respond like Prometheus"),
        ((200, "OK"), "did not respond like Prometheus"),
        ((200, ["a", "list"]), "did not respond like Prometheus"),
        ((302, HTML), "HTTP 302"),
        ((404, "404 page not found"), "HTTP 404"),
        ((401, "Unauthorized"), "access denied (HTTP 401)"),
        ((403, HTML), "access denied (HTTP 403)"),
        ((500, error("internal", "disk on fire")), "disk on fire"),
        ((502, HTML), "HTTP 502"),
    ],
)
def test_unexpected_responses_to_a_status_request(answer: tuple[int, Any], cause: str) -> None:
    with (
        FakePrometheus({"/api/v1/status/flags": answer}) as server,
        pytest.raises(SourceUnavailable) as caught,
    ):
        status(server.url)
    assert caught.value.message.startswith(f"cannot use Prometheus at {server.url}: ")
    assert cause in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("url", ["localhost:9090", "http://", "http://[::1", "ftp://127.0.0.1"])
def test_an_invalid_url(url: str) -> None:
    with pytest.raises(SourceUnavailable, match="cannot reach Prometheus at ") as caught:
        status(url)
    assert "PROMETHEUS_URL" in caught.value.hint


def test_proxies_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with FakePrometheus() as server:
        assert status(server.url).version == "3.14.0"


def test_a_snapshot_is_taken_and_its_name_returned(prometheus: PrometheusServer) -> None:
    with PrometheusClient(Access(prometheus.url)) as client:
        full = client.take_snapshot(skip_head=False)
        written = client.take_snapshot(skip_head=True)
    folder = prometheus.data_dir / "snapshots"
    assert {path.name for path in folder.iterdir()} == {full, written}
    live = {block.name for block in live_blocks(prometheus.data_dir)}
    assert {path.name for path in (folder / written).iterdir()} == live
    assert len(list((folder / full).iterdir())) == len(live) + 1


def test_a_disabled_admin_api_is_detected_by_its_message_because_it_returns_500(
    prometheus_binaries: PrometheusBinaries, start_prometheus: PrometheusFleet
) -> None:
    options = PrometheusOptions(admin_api=False, scrape_interval=None)
    server = start_prometheus(prometheus_binaries, None, options)
    with PrometheusClient(Access(server.url)) as client:
        assert not client.status().admin_api
        with pytest.raises(AdminApiDisabled, match="Failed to create snapshot: admin APIs"):
            client.take_snapshot(skip_head=False)
    assert not (server.data_dir / "snapshots").exists()


@pytest.mark.parametrize(
    ("answer", "kind", "cause"),
    [
        ((500, error("unavailable", "admin APIs disabled")), AdminApiDisabled, "admin APIs"),
        ((500, error("internal", "no space left")), SnapshotUnusable, "says: no space left"),
        ((500, error("unavailable", "TSDB not ready")), SnapshotUnusable, "TSDB not ready"),
        ((502, error("internal", "no space left")), SnapshotUnusable, "no space left"),
        ((401, "Unauthorized"), SourceUnavailable, "HTTP 401"),
        ((405, "Method Not Allowed"), SourceUnavailable, "HTTP 405"),
        ((503, "Service Unavailable"), SourceUnavailable, "HTTP 503"),
        ((200, HTML), SourceUnavailable, "returned no snapshot name"),
        ((200, {"name": None}), SourceUnavailable, "returned no snapshot name"),
        ((200, {"name": ["x"]}), SourceUnavailable, "returned no snapshot name"),
        ((502, HTML), SnapshotConnectionLost, "a proxy returned HTTP 502"),
        ((504, ""), SnapshotConnectionLost, "a proxy returned HTTP 504"),
    ],
)
def test_snapshot_responses_are_classified_and_the_request_is_not_repeated(
    answer: tuple[int, Any], kind: type[BackupToolError], cause: str
) -> None:
    with (
        FakePrometheus({SNAPSHOT_PATH: answer}) as server,
        PrometheusClient(Access(server.url)) as client,
        pytest.raises(BackupToolError) as caught,
    ):
        client.take_snapshot(skip_head=False)
    assert type(caught.value) is kind
    assert cause in caught.value.message
    assert server.snapshot_requests == [SNAPSHOT_PATH]


def test_a_lost_connection_may_leave_a_snapshot_and_the_request_is_not_repeated() -> None:
    with (
        FakePrometheus() as behind,
        Proxy(behind.url, on_snapshot=lambda _: None) as proxy,
        PrometheusClient(Access(proxy.url)) as client,
    ):
        with pytest.raises(SnapshotConnectionLost, match="Failed to create snapshot: ") as caught:
            client.take_snapshot(skip_head=True)
        assert caught.value.exit_code == 20
        assert proxy.snapshot_requests == [f"{SNAPSHOT_PATH}?skip_head=true"]


def test_a_refused_connection_takes_no_snapshot() -> None:
    with FakePrometheus() as server:
        url = server.url
    with (
        PrometheusClient(Access(url)) as client,
        pytest.raises(SourceUnavailable, match="Failed to create snapshot: cannot connect") as got,
    ):
        client.take_snapshot(skip_head=False)
    assert type(got.value) is SourceUnavailable


def query(
    url: str,
    expression: str,
    *,
    at: datetime | None = None,
    seconds: float = 10,
    max_bytes: int = 10_000,
) -> Any:
    """The data of the response for an instant, by default now."""
    with PrometheusClient(Access(url)) as client:
        limit = timedelta(seconds=seconds)
        at = at or datetime.now(UTC)
        return client.query(expression, at=at, limit=limit, max_bytes=max_bytes)


def failure(url: str, expression: str, **limits: Any) -> QueryFailed:
    with pytest.raises(QueryFailed) as caught:
        query(url, expression, **limits)
    return caught.value


def test_query_is_evaluated_at_its_instant_or_fails_with_a_message(
    prometheus: PrometheusServer,
) -> None:
    expression = 'sum(devtools_head{series=~"[1-5] ?"} @ end()) + time()'
    at = datetime.now(UTC)
    assert query(prometheus.url, expression, at=at)["result"] == prometheus.query(expression, at=at)

    assert failure(prometheus.url, "foo(").kind == "bad_data"
    endless = "sum(count_over_time(devtools_head[30m:1ms]))"
    assert failure(prometheus.url, endless, seconds=0.02).kind == "timeout"
    long = failure(prometheus.url, "devtools_head", max_bytes=1000)
    assert (long.kind, str(long)) == ("too-long", "the answer is longer than 1,000 bytes")


def test_query_of_a_hanging_prometheus_times_out(prometheus: PrometheusServer) -> None:
    prometheus.pause()
    try:
        assert str(failure(prometheus.url, "up", seconds=0.1)) == "no answer within 0.1 s"
    finally:
        prometheus.resume()


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (200, HTML, "HTTP 200"),
        (502, HTML, "HTTP 502"),
        (200, {"status": "success"}, "HTTP 200"),
        (200, {"status": "success", "data": []}, "HTTP 200"),
        (422, error("execution", "checksum mismatch"), "checksum mismatch"),
    ],
)
def test_response_of_another_server_fails(status: int, body: Any, cause: str) -> None:
    with FakePrometheus({"/api/v1/query": (status, body)}) as fake:
        assert str(failure(fake.url, "up")) == cause
