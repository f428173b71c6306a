"""Every dashboard query returns data in a real Prometheus that scrapes the tool's metrics."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools import dashboard
from devtools.alerts import RULES
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.pushgateway import Pushgateway
from prometheus_backup.metrics.families import FAMILIES
from tests.support.drills import HEAD_SUM
from tests.support.exporter import Served
from tests.support.kustomize import PROMETHEUS, only, render
from tests.support.runs import cli, settings
from tests.support.stored_backups import LocalFiles, put_small_backup
from tests.support.waiting import wait_until

_PANELS = [p for p in dashboard.dashboard()["panels"] if p["type"] != "row"]
_TARGETS = [(p["title"], target["expr"]) for p in _PANELS for target in p["targets"]]


def test_file_is_up_to_date() -> None:
    assert dashboard.PATH.read_text() == dashboard.text(), "python -m devtools.dashboard"


def test_config_map_holds_the_file_for_grafana() -> None:
    config_map = only(render(PROMETHEUS / "monitoring"), "ConfigMap", "prometheus-backup-dashboard")
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["data"] == {"dashboard.json": dashboard.text()}


def test_panels_have_descriptions_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard.dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert all(panel["description"] for panel in _PANELS)
    assert len({panel["title"] for panel in _PANELS}) == len(_PANELS)


def test_panels_query_known_metrics_only() -> None:
    named = {n for _, e in _TARGETS for n in re.findall(r"(?<!\w)prometheus_backup_\w+", e)}
    assert named <= set(FAMILIES)
    assert len(named) > 25


def test_choice_of_a_prometheus_decides_which_repositories_are_shown() -> None:
    variables = {v["name"]: v for v in dashboard.dashboard()["templating"]["list"]}
    assert [*variables][1:4] == ["cluster", "replica", "repository"]
    assert '{cluster=~"$cluster"}' in variables["replica"]["definition"]
    of_repository = variables["repository"]
    assert '{cluster=~"$cluster", replica=~"$replica"}' in of_repository["definition"]
    assert of_repository["allValue"] is None, "`.*` would mean those of every Prometheus"


@dataclass(frozen=True)
class Watched:
    """A Prometheus that monitors the backups of another one."""

    monitoring: PrometheusServer

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Query a panel's expression with the default values of the variables."""
        variables = {
            v["name"]: ".*" if v["type"] == "query" else v["query"]
            for v in dashboard.dashboard()["templating"]["list"]
        }
        for name, value in variables.items():
            expression = expression.replace(f"${name}", str(value))
        return self.monitoring.query(expression)


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, prometheus_3: PrometheusBinaries, tsdb_blocks: Path
) -> Iterator[Watched]:
    """Five daily backups, the last one verified, pruned and drilled; all metrics are scraped."""
    folder = tmp_path_factory.mktemp("watched")
    repository = folder / "repository"
    repository.mkdir()
    for days in (2, 3, 4, 5):
        put_small_backup(
            LocalFiles(repository), datetime.now(UTC) - timedelta(days=days), labels={}
        )
    shutil.copytree(tsdb_blocks, folder / "data")
    with (
        Pushgateway(folder / "pushgateway") as pushgateway,
        PrometheusFleet(folder) as start,
    ):
        source = start(prometheus_3, folder / "data")
        source.fill_head()
        env = settings(
            source,
            repository,
            LAYOUT="archive",
            PUSHGATEWAY_URL=pushgateway.url,
            FINGERPRINT_QUERY=HEAD_SUM,
            PROMETHEUS_BINARY=str(prometheus_3.prometheus),
            SCRATCH_DIR=str(folder / "scratch"),
        )
        for command in ("backup", "verify latest --level tsdb", "prune", "drill latest"):
            done = cli(*command.split(), env=env)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        source.stop()
        with Served.over(repository, folder / "exporter") as served:
            config = _configuration(served.url, pushgateway.url, _quick_rules(folder))
            options = PrometheusOptions(config=config)
            monitoring = start(prometheus_3, folder / "monitoring", options)
            for metric in ("prometheus_backup_repository_readable", _LAST_RUN):
                monitoring.wait_until_series(metric)
            yield Watched(monitoring)


_LAST_RUN = 'prometheus_backup_last_run_exit_code{command="drill"}'


def _quick_rules(folder: Path) -> Path:
    """Write the rules with an evaluation interval of one second; the default is a minute."""
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    return folder / "rules.yaml"


def _configuration(exporter: str, pushgateway: str, rules: Path) -> str:
    jobs = [
        {"job_name": name, "honor_labels": True, "static_configs": [{"targets": [url[7:]]}]}
        for name, url in (("exporter", exporter), ("pushgateway", pushgateway))
    ]
    return f"{yaml.safe_dump(jobs)}{yaml.safe_dump({'rule_files': [str(rules)]})}"


@pytest.mark.parametrize(("title", "expression"), _TARGETS, ids=[t for t, _ in _TARGETS])
def test_every_expression_returns_data(watched: Watched, title: str, expression: str) -> None:
    answers = watched.query(expression)
    assert answers, title
    assert all(answer["value"][1] != "NaN" for answer in answers)


def test_healthy_repository_looks_healthy(watched: Watched) -> None:
    def shown(title: str) -> set[float]:
        (expression,) = [e for t, e in _TARGETS if t == title]
        return {float(answer["value"][1]) for answer in watched.query(expression)}

    assert shown("Good backups") == {5}
    assert shown("Bad backups") == shown("Findings") == shown("Snapshots left behind") == {0}
    assert shown("Exit codes") == {0}
    assert shown("Last results") == {1}
    assert max(shown("Last good backup")) < 600


def test_healthy_backups_fire_no_alert(watched: Watched) -> None:
    seen = datetime.now(UTC)  # all metrics have been scraped

    def evaluated() -> bool:
        groups = watched.monitoring.get("rules")["groups"]
        times = [datetime.fromisoformat(r["lastEvaluation"]) for g in groups for r in g["rules"]]
        return min(times) > seen

    wait_until(evaluated)
    groups = watched.monitoring.get("rules")["groups"]
    assert {r["health"] for group in groups for r in group["rules"]} == {"ok"}
    firing = {a["labels"]["alertname"] for a in watched.monitoring.get("alerts")["alerts"]}
    # Next to the tiny prepared backups, one of a real Prometheus is unusually large.
    assert firing <= {"PrometheusBackupGrown", "PrometheusBackupVerificationStale"}
