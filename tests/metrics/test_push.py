"""Metrics in a real Pushgateway, and pings of a health check."""

import pytest

from devtools.pushgateway import Pushgateway
from prometheus_backup.metrics.exposition import parse
from prometheus_backup.metrics.families import Sample, labelled, sample
from prometheus_backup.metrics.push import JOB, ping, push, ready
from prometheus_backup.metrics.run import RunRecorder
from tests.support.faulty_http import Answer, FaultyServer
from tests.support.repositories import NOON, ManualClock

HERE = {"repository": "s3://bucket/a b"}
OTHER = {"repository": "s3://bucket/b"}


def run_samples(
    command: str, code: int, *, hours: int = 0, where: dict[str, str] = HERE
) -> list[Sample]:
    """Return the samples of a run that ended this many hours after noon."""
    clock = ManualClock()
    clock.sleep(hours * 3600)
    return labelled(RunRecorder(command, clock).samples(code), where)


def pushed(server: Pushgateway) -> dict[tuple[str, str, str], float]:
    """Return its metrics of this program, by short name, command and repository."""
    found = {}
    for one in parse(server.metrics()):
        assert one.labels["job"] == JOB
        short = one.name.removeprefix("prometheus_backup_")
        key = short, one.labels.get("command", ""), one.labels["repository"]
        assert key not in found, "two sources mix"
        found[key] = one.value
    return found


def test_failed_run_does_not_erase_the_last_success(pushgateway: Pushgateway) -> None:
    push(pushgateway.url, run_samples("backup", 0), None)

    push(pushgateway.url, run_samples("backup", 20, hours=24), None)

    found = pushed(pushgateway)
    repository = HERE["repository"]
    success = found["last_success_timestamp_seconds", "backup", repository]
    assert success == NOON.timestamp()
    assert found["last_run_exit_code", "backup", repository] == 20
    attempt = found["last_attempt_timestamp_seconds", "backup", repository]
    assert attempt == NOON.timestamp() + 24 * 3600


def test_commands_and_repositories_do_not_mix(pushgateway: Pushgateway) -> None:
    push(pushgateway.url, run_samples("backup", 0), labelled([sample("good_backups", 3)], HERE))
    push(pushgateway.url, run_samples("verify", 41), None)
    push(
        pushgateway.url,
        run_samples("backup", 12, where=OTHER),
        labelled([sample("good_backups", 7)], OTHER),
    )

    found = pushed(pushgateway)
    codes = {key[1:]: value for key, value in found.items() if key[0] == "last_run_exit_code"}
    assert codes == {
        ("backup", HERE["repository"]): 0,
        ("verify", HERE["repository"]): 41,
        ("backup", OTHER["repository"]): 12,
    }
    assert found["good_backups", "", HERE["repository"]] == 3
    assert found["good_backups", "", OTHER["repository"]] == 7


def test_outdated_repository_metrics_are_deleted(pushgateway: Pushgateway) -> None:
    both = [sample("good_backups", 1), sample("last_good_backup_timestamp_seconds", 1)]
    push(pushgateway.url, run_samples("backup", 0), labelled(both, HERE))

    push(pushgateway.url, run_samples("prune", 0), labelled([sample("good_backups", 0)], HERE))

    found = pushed(pushgateway)
    assert found["good_backups", "", HERE["repository"]] == 0
    assert ("last_good_backup_timestamp_seconds", "", HERE["repository"]) not in found


def test_unresponsive_pushgateway_times_out(pushgateway: Pushgateway) -> None:
    pushgateway.pause()
    try:
        with pytest.raises(OSError, match="timed out"):
            push(pushgateway.url, run_samples("backup", 0), None)
    finally:
        pushgateway.resume()


def test_error_of_the_pushgateway_is_reported(pushgateway: Pushgateway) -> None:
    twice = [*run_samples("backup", 0), *run_samples("backup", 3)]

    with pytest.raises(OSError, match="it answered 400: pushed metrics are invalid"):
        push(pushgateway.url, twice, None)


def test_success_is_pinged_and_failure_is_sent_with_its_cause() -> None:
    with FaultyServer(otherwise=Answer(status=200)) as server:
        ping(f"{server.url}/ping/secret", failure=None)
        ping(f"{server.url}/ping/secret/", failure="exit 20: Prometheus is down")
        ping(f"{server.url}/push?token=t", failure="exit 3")

    asked = [(r.method, r.path) for r in server.requests]
    assert asked == [
        ("GET", "/ping/secret"),
        ("POST", "/ping/secret/fail"),
        ("POST", "/push/fail?token=t"),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/a-secret",
        "http://no-such-host.invalid/a-secret",
        "ftp://127.0.0.1/a-secret",
        "a-secret",
        "http://user:a-secret@127.0.0.1:port/",
        "http://127.0.0.1:9/a-secret\n",
        "http://a-secret-\udce9.invalid/",
        "https://" + "a-secret." * 40,
    ],
)
def test_messages_do_not_contain_the_health_check_url(url: str) -> None:
    for failure in (None, "exit 3"):
        with pytest.raises(OSError, match=r".") as raised:
            ping(url, failure=failure)
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize("body", [b"no check at /a-secret", b"Basic dTphLXNlY3JldA=="])
def test_error_of_a_health_check_does_not_repeat_what_the_server_echoes(body: bytes) -> None:
    with FaultyServer(otherwise=Answer(status=404, body=body)) as server:
        address = server.url.replace("//", "//u:a-secret@")
        with pytest.raises(OSError, match=r"^it answered 404$"):
            ping(f"{address}/a-secret", failure=None)
        with pytest.raises(OSError, match=r"^it answered 404$"):
            ready(address)
