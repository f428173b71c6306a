"""The backup as a sidecar in Prometheus' pod."""

import json
import signal
from pathlib import Path

import kubernetes_validate
import yaml

from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from tests.support.cluster import Cluster
from tests.support.kustomize import PROMETHEUS, Manifest, only, render
from tests.support.pages import ROOT
from tests.support.pod_security import violations

# A minimal version of what a user has.
_STATEFUL_SET = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: prometheus, namespace: observability}
spec:
  serviceName: prometheus
  selector: {matchLabels: {app: prometheus}}
  template:
    metadata: {labels: {app: prometheus}}
    spec:
      securityContext:
        runAsNonRoot: true
        runAsUser: 65534
        runAsGroup: 65534
        seccompProfile: {type: RuntimeDefault}
      containers:
      - name: prometheus
        image: prom/prometheus:v3.14.0
        securityContext:
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL]}
        volumeMounts:
        - {name: prometheus-storage, mountPath: /prometheus}
      volumes:
      - name: prometheus-storage
        emptyDir: {}
"""
_OPERATOR_PROMETHEUS = """
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {name: k8s, namespace: observability}
spec:
  replicas: 1
  containers:
  - {name: own, image: "example.com/own:1"}
  volumes:
  - {name: own, emptyDir: {}}
"""


def _with_sidecar(folder: Path, text: str) -> list[Manifest]:
    (folder / "prometheus.yaml").write_text(text)
    component = PROMETHEUS / "components" / "sidecar"
    up = "/".join([".."] * (len(folder.parts) - 1))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["prometheus.yaml"],
        "components": [f"{up}{component}"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def test_stateful_set_gets_a_second_container(tmp_path: Path) -> None:
    manifests = _with_sidecar(tmp_path, _STATEFUL_SET)
    assert sorted(m["kind"] for m in manifests) == ["ConfigMap", "StatefulSet"]
    stateful_set = only(manifests, "StatefulSet")
    kubernetes_validate.validate(stateful_set, "1.37", strict=True)
    spec = stateful_set["spec"]["template"]["spec"]
    assert {c["name"] for c in spec["containers"]} == {"prometheus", "prometheus-backup"}
    assert {v["name"] for v in spec["volumes"]} == {"prometheus-storage", "prometheus-backup-tmp"}
    assert violations(spec) == []


def test_prometheus_of_the_operator_keeps_its_own_containers_and_gets_the_same_one(
    tmp_path: Path,
) -> None:
    for name in ("plain", "operator"):
        (tmp_path / name).mkdir()
    plain = only(_with_sidecar(tmp_path / "plain", _STATEFUL_SET), "StatefulSet")["spec"]
    containers = plain["template"]["spec"]["containers"]
    (own,) = [c for c in containers if c["name"] == "prometheus-backup"]
    spec = only(_with_sidecar(tmp_path / "operator", _OPERATOR_PROMETHEUS), "Prometheus")["spec"]
    assert [c["name"] for c in spec["containers"]] == ["own", "prometheus-backup"]
    other = spec["containers"][1]
    (data, _), (operators_data, _) = own.pop("volumeMounts"), other.pop("volumeMounts")
    assert own == other
    assert operators_data == {**data, "name": "prometheus-k8s-db", "subPath": "prometheus-db"}
    assert [v["name"] for v in spec["volumes"]] == ["own", "prometheus-backup-tmp"]


def test_sidecar_makes_a_backup_and_ends_with_its_pod(
    tmp_path: Path, cluster: Cluster, source: PrometheusServer, bucket: S3Bucket
) -> None:
    stateful_set = only(_with_sidecar(tmp_path, _STATEFUL_SET), "StatefulSet")
    spec = stateful_set["spec"]["template"]["spec"]
    (sidecar,) = [c for c in spec["containers"] if c["name"] == "prometheus-backup"]
    cluster.empty_dirs["prometheus-storage"] = source.data_dir
    process = cluster.start(sidecar, spec)
    try:
        assert process.stderr
        log = ""
        for line in process.stderr:
            log += line
            if "backup ended with" in line:
                break
        assert "backup ended with exit 0" in log, log
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.wait()
    made = [k for k in bucket.keys("prometheus-snapshots/") if k.endswith("/metadata.json")]
    assert [json.loads(bucket.get(key))["labels"] for key in made] == [{"replica": "prometheus-0"}]
    assert list((source.data_dir / "snapshots").iterdir()) == []


def test_component_exists_where_the_page_says() -> None:
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
    assert "components/sidecar" in page
