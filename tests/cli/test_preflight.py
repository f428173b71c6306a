"""`check` tests the monitoring settings and sends nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusServer
from devtools.pushgateway import Pushgateway
from tests.support.faulty_http import Answer, FaultyServer
from tests.support.runs import settings
from tests.support.stored_backups import json_of, run_here


@pytest.fixture(scope="module")
def sound(
    tmp_path_factory: pytest.TempPathFactory, prometheus_3: PrometheusBinaries
) -> Iterator[dict[str, str]]:
    """Return valid settings for a backup."""
    folder = tmp_path_factory.mktemp("preflight")
    (folder / "repository").mkdir()
    with PrometheusServer(prometheus_3, folder / "data") as source:
        yield settings(source, folder / "repository")


def monitoring_checks(code: int, **env: str) -> dict[str, tuple[bool, str, str]]:
    """Run a check that ends with this code; return its monitoring lines: ok, detail and fix."""
    value = json_of(run_here("check", "--json", env=env), code=code)
    assert value["ok"] == (code == 0)
    return {
        line["subject"].removeprefix("monitoring: "): (line["ok"], line["detail"], line["fix"])
        for line in value["checks"]
        if line["subject"].startswith("monitoring: ")
    }


def test_valid_destinations_are_listed_and_nothing_is_sent(
    sound: dict[str, str], tmp_path: Path, pushgateway: Pushgateway
) -> None:
    with FaultyServer(otherwise=Answer(status=200)) as switch:
        found = monitoring_checks(
            0,
            **sound,
            METRICS_TEXTFILE=str(tmp_path / "backup.prom"),
            PUSHGATEWAY_URL=pushgateway.url,
            HEALTHCHECK_URL=f"{switch.url}/a-secret",
        )

    assert {*found} == {"settings", "METRICS_TEXTFILE", "PUSHGATEWAY_URL", "HEALTHCHECK_URL"}
    assert all(ok for ok, _, _ in found.values())
    assert found["settings"][1].startswith("one backup every 1d, ")
    assert "a-secret" not in str(found)
    assert switch.requests == []
    assert "prometheus_backup_" not in pushgateway.metrics()
    assert list(tmp_path.glob("*.prom")) == []


@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("METRICS_TEXTFILE", "/nonexistent/backup.prom", "cannot write to /nonexistent"),
        ("METRICS_TEXTFILE", "/tmp/backup.txt", "does not end in .prom"),  # noqa: S108
        ("PUSHGATEWAY_URL", "http://127.0.0.1:9", "refused"),
        ("HEALTHCHECK_URL", "a-secret", "not an http"),
    ],
)
def test_unusable_destination_has_a_fix(
    sound: dict[str, str], name: str, value: str, detail: str
) -> None:
    ok, detail, fix = monitoring_checks(3, **sound, **{name: value})[name]

    assert not ok
    assert detail in detail
    assert "a-secret" not in detail
    assert fix


@pytest.mark.parametrize(
    ("name", "value"), [("BACKUP_INTERVAL", "nightly"), ("METRICS_LABELS", "repository=mine")]
)
def test_invalid_metrics_settings_have_a_fix(sound: dict[str, str], name: str, value: str) -> None:
    ok, detail, fix = monitoring_checks(3, **sound, **{name: value})["settings"]

    assert not ok
    assert "cannot" in detail
    assert fix


def test_server_that_is_not_a_pushgateway_is_detected(sound: dict[str, str]) -> None:
    with FaultyServer(otherwise=Answer(status=404, body=b"nothing here")) as server:
        ok, detail, _ = monitoring_checks(3, **sound, PUSHGATEWAY_URL=server.url)["PUSHGATEWAY_URL"]

    assert not ok
    assert "404" in detail
