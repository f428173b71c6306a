"""The rule files: one is generated from the other; every alert has annotations and a runbook."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools import alerts
from devtools.fetch_prometheus import PrometheusBinaries
from tests.support.pages import DOCS, ROOT, Page

_PAGE = Page(DOCS / "how-to" / "alerts.md")


def _rules(document: Any) -> list[dict[str, Any]]:
    return [r for group in document["groups"] for r in group["rules"] if "alert" in r]


_RULES = _rules(yaml.safe_load(alerts.RULES.read_text()))


def test_prometheus_rule_has_the_rules_of_the_plain_file() -> None:
    generated = alerts.PROMETHEUS_RULE.read_text()
    assert generated == alerts.prometheus_rule(alerts.RULES.read_text()), (
        "python -m devtools.alerts"
    )
    manifest = yaml.safe_load(generated)
    assert (manifest["apiVersion"], manifest["kind"]) == (
        "monitoring.coreos.com/v1",
        "PrometheusRule",
    )
    assert manifest["spec"] == yaml.safe_load(alerts.RULES.read_text())


@pytest.mark.parametrize("rule", _RULES, ids=lambda r: f"{r['alert']}-{r['labels'].get('reason')}")
def test_alert_has_summary_description_and_runbook(rule: dict[str, Any]) -> None:
    annotations = rule["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert len(annotations["summary"]) < 120
    assert "`" in annotations["description"] or re.search(
        r"\b(Read|Run|Find|Check|Compare|see|log)\b", annotations["description"]
    )
    path, _, anchor = annotations["runbook_url"].partition("#")
    assert ROOT / path == _PAGE.path
    assert anchor in _PAGE.anchors()
    assert anchor == rule["alert"].lower()


def test_page_describes_every_alert_and_no_other() -> None:
    titles = re.findall(r"^## (PrometheusBackup\w+)$", _PAGE.text, re.MULTILINE)
    assert sorted(titles) == sorted({rule["alert"] for rule in _RULES})


def test_alerts_about_lost_backups_have_high_severity() -> None:
    high = {r["alert"] for r in _RULES if r["labels"]["severity"] == "high"}
    warning = {r["alert"] for r in _RULES if r["labels"]["severity"] == "warning"}
    assert {"PrometheusBackupFailed", "PrometheusBackupMissing"} <= high
    assert high | warning == {r["alert"] for r in _RULES}
    assert not high & warning


def test_rules_use_only_metrics_that_exist() -> None:
    from prometheus_backup.metrics.families import FAMILIES

    named = {
        name
        for rule in _RULES
        for name in re.findall(r"(?<![\w:])prometheus_backup_\w+", rule["expr"])
    }
    assert len(named) > 15
    assert named <= set(FAMILIES)


def test_command_on_the_page_completes_the_runbook_links(tmp_path: Path) -> None:
    monitoring = Page(DOCS / "how-to" / "monitoring.md")
    (command,) = [b.text for b in monitoring.blocks("bash") if b.text.startswith("sed ")]
    shutil.copy(alerts.RULES, tmp_path / "rules.yaml")
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)
    rules = _rules(yaml.safe_load((tmp_path / "rules.yaml").read_text()))
    address = "https://git.example.com/prometheus-backup/docs/how-to/alerts.md#"
    assert all(rule["annotations"]["runbook_url"].startswith(address) for rule in rules)


def test_prometheus_accepts_the_configuration_on_the_page(
    tmp_path: Path, prometheus_binaries: PrometheusBinaries
) -> None:
    blocks = Page(DOCS / "how-to" / "monitoring.md").blocks("yaml")
    examples = [b.text for b in blocks if b.text.startswith(("scrape_configs", "rule_files"))]
    assert len(examples) == 2
    (tmp_path / "prometheus.yml").write_text("".join(examples))
    shutil.copy(alerts.RULES, tmp_path)
    done = subprocess.run(
        [prometheus_binaries.promtool, "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d rules found", done.stdout + done.stderr)
