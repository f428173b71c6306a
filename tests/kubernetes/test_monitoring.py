"""The exporter's manifests match each other and those of the backup, and the exporter runs."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.exporter import Served
from tests.support.kustomize import (
    PROMETHEUS,
    Manifest,
    job_of,
    only,
    pods,
    render,
    with_components,
)
from tests.support.pages import DOCS
from tests.support.started_cli import StartedCli
from tests.support.stored_backups import LocalFiles

_FOLDER = PROMETHEUS / "monitoring"
_NAME = "prometheus-backup-metrics"


def _deployment() -> Manifest:
    return only(render(_FOLDER), "Deployment", _NAME)


def _container() -> Manifest:
    (container,) = _deployment()["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def _variables(container: Manifest) -> dict[str, str]:
    return {e["name"]: e["value"] for e in container["env"] if "value" in e}


def test_operator_selects_the_service_and_the_service_the_pod() -> None:
    manifests = render(_FOLDER)
    service = only(manifests, "Service", _NAME)
    monitor = only(manifests, "ServiceMonitor", _NAME)
    policy = only(manifests, "NetworkPolicy", _NAME)
    labels = _deployment()["spec"]["template"]["metadata"]["labels"]
    for selector, target in (
        (monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"]),
        (service["spec"]["selector"], labels),
        (policy["spec"]["podSelector"]["matchLabels"], labels),
    ):
        assert selector.items() <= target.items()
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]
    (container_port,) = _container()["ports"]
    assert endpoint["port"] == port["name"]
    assert port["targetPort"] == container_port["name"]
    assert f":{container_port['containerPort']}" in _container()["args"]
    assert policy["spec"]["ingress"][0]["ports"][0]["port"] == container_port["name"]


def test_selectors_of_the_backup_do_not_match_the_exporter() -> None:
    for manifest in render(_FOLDER):
        assert manifest["metadata"].get("labels", {}).get("app") != "prometheus-backup"
    assert _deployment()["spec"]["template"]["metadata"]["labels"]["app"] != "prometheus-backup"


def test_exporter_has_the_repository_and_policy_of_the_backup() -> None:
    backup = render(PROMETHEUS / "backup")
    cronjob = only(backup, "CronJob")
    (container,) = job_of(cronjob)["spec"]["template"]["spec"]["containers"]
    mine, theirs = _variables(_container()), _variables(container)
    retention = {n for n in theirs if n.startswith("RETENTION_")}
    assert {n: mine[n] for n in retention} == {n: theirs[n] for n in retention}
    assert len(retention) == 3
    secrets = [e for e in container["env"] if "secretKeyRef" in e.get("valueFrom", {})]
    assert [e for e in _container()["env"] if "secretKeyRef" in e.get("valueFrom", {})] == secrets
    assert _container()["envFrom"] == container["envFrom"]
    assert _container()["image"] == container["image"]
    names = dict(pair.split("=") for pair in mine["METRICS_LABELS"].split(","))
    assert names == {"namespace": "$(POD_NAMESPACE)", "cronjob": cronjob["metadata"]["name"]}
    (namespace,) = [e for e in _container()["env"] if e["name"] == "POD_NAMESPACE"]
    assert namespace["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_exporter_starts_with_the_arguments_of_the_manifest(
    repository_files: LocalFiles, tmp_path: Path
) -> None:
    container = _container()
    (port,) = (str(p["containerPort"]) for p in container["ports"])
    args = [argument.replace(f":{port}", "127.0.0.1:0") for argument in container["args"]]
    variables = {
        name: value.replace("$(POD_NAMESPACE)", "monitoring")  # as Kubernetes does
        for name, value in _variables(container).items()
    }
    env = {**variables, **repository_files.environment()}
    with StartedCli(*args, env=env, directory=tmp_path / "run") as started:
        served = Served(started)
        probes = [container[p]["httpGet"]["path"] for p in ("startupProbe", "livenessProbe")]
        assert {served.get(path).status_code for path in probes} == {200}
        labels = 'cronjob="prometheus-backup",namespace="monitoring",repository='
        assert f"prometheus_backup_good_backups{{{labels}" in served.get("/metrics").text


@pytest.mark.parametrize("name", ["backup", "verify", "drill"])
def test_pushgateway_is_a_component_of_each_job(name: str, tmp_path: Path) -> None:
    manifests = with_components(tmp_path, PROMETHEUS / name, "pushgateway")
    (pod,) = pods(manifests)
    given = _variables(pod["spec"]["containers"][0])
    url = urlsplit(given["PUSHGATEWAY_URL"])
    assert given["METRICS_LABELS"] == _variables(_container())["METRICS_LABELS"]
    policy = only(manifests, "NetworkPolicy")["spec"]
    (rule,) = [r for r in policy["egress"] if "namespaceSelector" in r.get("to", [{}])[0]]
    assert [port["port"] for port in rule["ports"]] == [url.port]


def test_dead_mans_switch_is_a_component_with_a_secret(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, PROMETHEUS / "backup", "healthcheck")
    (pod,) = pods(manifests)
    (entry,) = [e for e in pod["spec"]["containers"][0]["env"] if e["name"] == "HEALTHCHECK_URL"]
    assert entry["valueFrom"]["secretKeyRef"] == {
        "name": "prometheus-backup-healthcheck",
        "key": "url",
    }
    page = (DOCS / "how-to" / "monitoring.md").read_text()
    assert "prometheus-backup-healthcheck --from-literal=url=" in page
