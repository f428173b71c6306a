"""Every alert fires when it should and is silent when it should: promtool's own unit tests."""

import subprocess
from pathlib import Path

import pytest
import yaml

from devtools.alerts import RULES
from devtools.fetch_prometheus import PrometheusBinaries
from tests.alerts.cases import CASES
from tests.alerts.worlds import Case

_ALERTS = {
    rule["alert"]
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


def test_rules_are_what_promtool_accepts(prometheus_binaries: PrometheusBinaries) -> None:
    done = subprocess.run(
        [prometheus_binaries.promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_in_a_case_and_is_silent_in_another() -> None:
    fired = {alert.name for case in CASES for alerts in case.fires.values() for alert in alerts}
    assert fired == _ALERTS


def test_alerts_fire_when_they_should_and_only_then(
    prometheus_binaries: PrometheusBinaries, tmp_path: Path
) -> None:
    file = tmp_path / "alerts.test.yaml"
    tests = [_test(case) for case in CASES]
    file.write_text(
        yaml.safe_dump(
            {"rule_files": [str(RULES)], "evaluation_interval": "1h", "tests": tests},
            width=10_000,
        )
    )
    done = subprocess.run(
        [prometheus_binaries.promtool, "test", "rules", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_expectation_is_noticed(prometheus_3: PrometheusBinaries, tmp_path: Path) -> None:
    case = next(c for c in CASES if any(c.fires.values()))
    file = tmp_path / "alerts.test.yaml"
    silent = Case(case.name, case.world, {hour: [] for hour in case.fires})
    file.write_text(
        yaml.safe_dump(
            {"rule_files": [str(RULES)], "evaluation_interval": "1h", "tests": [_test(silent)]}
        )
    )
    done = subprocess.run(
        [prometheus_3.promtool, "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert case.name in done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_is_about_something(case: Case) -> None:
    assert case.fires
    assert all(isinstance(hour, int) for hour in case.fires)


def _test(case: Case) -> dict[str, object]:
    """A test of promtool's. The expression says the case's name, as promtool shows nothing else."""
    hours = max(case.fires) + 1
    return {
        "interval": "1h",
        "input_series": [
            {"series": name, "values": " ".join(_text(value(h)) for h in range(hours))}
            for name, value in case.world.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertstate="firing", alertname!="{case.name}, hour {hour}"}}',
                "eval_time": f"{hour}h",
                "exp_samples": [
                    {"labels": _labels(alert.name, alert.severity, **alert.labels), "value": 1}
                    for alert in alerts
                ],
            }
            for hour, alerts in case.fires.items()
        ],
    }


def _labels(name: str, severity: str, **labels: str) -> str:
    every = {"alertname": name, "alertstate": "firing", "severity": severity, **labels}
    return "ALERTS{" + ", ".join(f'{k}="{v}"' for k, v in every.items()) + "}"


def _text(value: float | None) -> str:
    return "_" if value is None else f"{value:.0f}"
