"""Every alert fires when it should and only then, checked by promtool's unit tests."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from devtools.alerts import RULES
from devtools.fetch_prometheus import PrometheusBinaries
from tests.alerts.case import Case
from tests.alerts.cases import CASES
from tests.alerts.series import (
    HOUR,
    REPOSITORY,
    REPOSITORY_SERIES,
    constant,
    cronjob_series,
    failed_job,
    kube,
    tool,
)

_RULES = [
    rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


def test_promtool_accepts_the_rules(prometheus_binaries: PrometheusBinaries) -> None:
    done = subprocess.run(
        [prometheus_binaries.promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_in_a_case() -> None:
    fired = {alert.name for case in CASES for alerts in case.fires.values() for alert in alerts}
    assert fired == {rule["alert"] for rule in _RULES}


def test_alerts_fire_when_they_should_and_only_then(
    prometheus_binaries: PrometheusBinaries, tmp_path: Path
) -> None:
    done = _promtool(prometheus_binaries, tmp_path, [_test(case) for case in CASES])
    assert done.returncode == 0, done.stdout + done.stderr


def test_wrong_expectation_fails(prometheus_3: PrometheusBinaries, tmp_path: Path) -> None:
    case = next(c for c in CASES if any(c.fires.values()))
    silent = Case(case.name, case.series, {hour: [] for hour in case.fires})
    done = _promtool(prometheus_3, tmp_path, [_test(silent)])
    assert done.returncode == 1
    assert case.name in done.stdout + done.stderr


def test_annotations_are_filled_in(prometheus_binaries: PrometheusBinaries, tmp_path: Path) -> None:
    overdue = _rule("PrometheusBackupMissing", "overdue")["annotations"]
    failed = _rule("PrometheusBackupFailed", "job")["annotations"]
    series = {
        **dict(REPOSITORY_SERIES),
        tool("last_good_backup_timestamp_seconds"): constant(2 * HOUR),
        **cronjob_series(),
        **failed_job("prometheus-backup-1", 26 * HOUR),
        kube("status_last_successful_time"): constant(2 * HOUR + 300),
    }
    test = _test(Case("annotations", series, {34: []}))
    del test["promql_expr_test"]
    test["alert_rule_test"] = [
        {
            "eval_time": "34h",
            "alertname": "PrometheusBackupMissing",
            "exp_alerts": [
                _expected_alert(
                    overdue,
                    {"severity": "high", "reason": "overdue", "repository": REPOSITORY},
                    {
                        "{{ $value | humanizeDuration }}": "1d 8h 0m 0s",
                        "{{ $labels.repository }}": REPOSITORY,
                    },
                )
            ],
        },
        {
            "eval_time": "34h",
            "alertname": "PrometheusBackupFailed",
            "exp_alerts": [
                _expected_alert(
                    failed,
                    {
                        "severity": "high",
                        "reason": "job",
                        "namespace": "observability",
                        "cronjob": "prometheus-backup",
                    },
                    {
                        "{{ $value | humanizeTimestamp }}": "1970-01-02 02:00:00 +0000 UTC",
                        "{{ $labels.namespace }}": "observability",
                        "{{ $labels.cronjob }}": "prometheus-backup",
                    },
                )
            ],
        },
    ]
    done = _promtool(prometheus_binaries, tmp_path, [test])
    assert done.returncode == 0, done.stdout + done.stderr


def test_annotations_use_only_labels_of_the_alert() -> None:
    fired = [a for case in CASES for alerts in case.fires.values() for a in alerts]
    for alert in fired:
        rule = _rule(alert.name, alert.labels.get("reason"))
        used = re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))
        assert {*used} <= {*alert.labels}, alert.name


def _rule(name: str, reason: str | None) -> dict[str, Any]:
    (found,) = [r for r in _RULES if (r["alert"], r["labels"].get("reason")) == (name, reason)]
    assert isinstance(found, dict)
    return found


def _expected_alert(
    annotations: Mapping[str, str], labels: Mapping[str, str], values: Mapping[str, str]
) -> dict[str, object]:
    """Return the alert that promtool must find, with the templates in its annotations filled in."""
    text = json.dumps(dict(annotations))
    for template, value in values.items():
        text = text.replace(template, value)
    assert "{{" not in text
    expected = json.loads(text)
    return {"exp_labels": dict(labels), "exp_annotations": expected}


def _promtool(
    binaries: PrometheusBinaries, folder: Path, tests: list[dict[str, object]]
) -> subprocess.CompletedProcess[str]:
    """Run unit tests of the rules."""
    file = folder / "alerts.test.yaml"
    file.write_text(
        yaml.safe_dump(
            {"rule_files": [str(RULES)], "evaluation_interval": "1h", "tests": tests}, width=10_000
        )
    )
    return subprocess.run(
        [binaries.promtool, "test", "rules", file], capture_output=True, text=True, check=False
    )


def _test(case: Case) -> dict[str, object]:
    """Return a promtool unit test. promtool prints only the expression, so that has the name."""
    hours = max(case.fires) + 1
    return {
        "interval": "1h",
        "input_series": [
            {"series": name, "values": " ".join(_sample(value(h)) for h in range(hours))}
            for name, value in case.series.items()
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


def _sample(value: float | None) -> str:
    return "_" if value is None else f"{value:.0f}"
