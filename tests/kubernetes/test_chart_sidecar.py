"""Mode `sidecar` of the chart: other charts and objects take its container as it is."""

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from devtools.fetch_container_tools import find_kubectl
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from tests.kubernetes.test_manifests import NEWEST
from tests.support.cluster import Cluster
from tests.support.helm import NOTES, objects, rendered
from tests.support.kustomize import Manifest, only, pods
from tests.support.pod_security import violations

Values = dict[str, Any]

_USER = {"runAsNonRoot": True, "runAsUser": 65534, "runAsGroup": 65534}
_SECURITY = {**_USER, "seccompProfile": {"type": "RuntimeDefault"}}
_OWN = {
    "name": "own",
    "image": "example.com/own:1",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
_KUBE_PROMETHEUS_STACK = """
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata:
  name: {{ .Release.Name }}-kube-prometheus-prometheus
spec:
  replicas: {{ .Values.prometheus.prometheusSpec.replicas }}
  {{- with .Values.prometheus.prometheusSpec.containers }}
  containers:
    {{- tpl (toYaml .) $ | nindent 4 }}
  {{- end }}
  {{- with .Values.prometheus.prometheusSpec.volumes }}
  volumes:
    {{- toYaml . | nindent 4 }}
  {{- end }}
"""
"""How kube-prometheus-stack passes on `prometheusSpec`."""
_PROMETHEUS_COMMUNITY = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}-server
spec:
  selector:
    matchLabels: {app: server}
  template:
    metadata:
      labels: {app: server}
    spec:
      securityContext:
        {{- toYaml .Values.server.securityContext | nindent 8 }}
      containers:
      - name: prometheus-server
        image: prom/prometheus:v3.14.0
        volumeMounts:
        - name: storage-volume
          mountPath: /data
      {{- range $name, $spec := .Values.server.sidecarContainers }}
      - name: {{ $name }}
        {{- toYaml $spec | nindent 8 }}
      {{- end }}
      volumes:
      - name: storage-volume
        persistentVolumeClaim:
          claimName: {{ .Release.Name }}-server
      {{- with .Values.server.extraVolumes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
"""
"""How the chart `prometheus` of prometheus-community passes on `server`."""


def _file(values: Values, key: str, name: str = "prometheus-backup-sidecar") -> str:
    data = only(objects(values), "ConfigMap", name)["data"]
    assert data.keys() == {key}
    return str(data[key])


def _rendered(folder: Path, template: str, own: Values, sidecar: str) -> Manifest:
    """Return the object of another chart: `helm template --values own --values sidecar`."""
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: other, version: 1.0.0}")
    (folder / "values.yaml").write_text(yaml.safe_dump(own))
    (folder / "templates" / "object.yaml").write_text(template)
    with helm_python.Chart.load(folder) as chart:
        (text,) = chart.render(yaml.safe_load(sidecar), name="monitoring", namespace="a").values()
    manifest: Manifest = yaml.safe_load(text)
    return manifest


def _container(spec: Mapping[str, Any]) -> Manifest:
    (found,) = [c for c in spec["containers"] if c["name"] == "prometheus-backup"]
    container: Manifest = found
    return container


def _patched(tmp_path: Path, target: Manifest, patch: str) -> Manifest:
    """Return the object as `kubectl patch --type strategic` changes it."""
    (tmp_path / "object.yaml").write_text(yaml.safe_dump(target))
    (tmp_path / "patch.yaml").write_text(patch)
    files = ["-f", str(tmp_path / "object.yaml"), "--patch-file", str(tmp_path / "patch.yaml")]
    done = subprocess.run(
        [find_kubectl().path, "patch", "--local", "--type", "strategic", *files, "-o", "yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    changed: Manifest = yaml.safe_load(done.stdout)
    return changed


def _stateful_set() -> Manifest:
    labels = {"app": "prometheus"}
    spec = {"containers": [_OWN], "securityContext": _SECURITY}
    claims = [{"metadata": {"name": "prometheus-storage"}, "spec": {}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "prometheus"},
        "spec": {
            "serviceName": "prometheus",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
            "volumeClaimTemplates": claims,
        },
    }


def _spec_in_stack(tmp_path: Path) -> Manifest:
    """Return the pod that the operator makes of the object that kube-prometheus-stack renders."""
    values = {"preset": "kube-prometheus-stack", "release": "monitoring", "mode": "sidecar"}
    # Its Prometheus mounts a folder of the volume; that of the test has it at the top.
    sidecar = _file({"prometheus": {**values, "subPath": ""}}, "values.yaml")
    own = {"prometheus": {"prometheusSpec": {"replicas": 1}}}
    manifest = _rendered(tmp_path / "chart", _KUBE_PROMETHEUS_STACK, own, sidecar)
    name = manifest["metadata"]["name"]
    volume = {"name": f"prometheus-{name}-db", "persistentVolumeClaim": {"claimName": "claim"}}
    added = manifest["spec"]
    return {
        "securityContext": _SECURITY,
        "containers": [_OWN, *added["containers"]],
        "volumes": [volume, *added["volumes"]],
    }


def _spec_in_community_chart(tmp_path: Path) -> Manifest:
    sidecar = _file({"prometheus": {"preset": "custom", "mode": "sidecar"}}, "values.yaml")
    own = {"server": {"securityContext": _SECURITY, "sidecarContainers": {"own": _without_name()}}}
    manifest = _rendered(tmp_path / "chart", _PROMETHEUS_COMMUNITY, own, sidecar)
    kubernetes_validate.validate(manifest, NEWEST, strict=True)
    (pod,) = pods([manifest])
    spec: Manifest = pod["spec"]
    assert [c["name"] for c in spec["containers"]] == [
        *("prometheus-server", "own", "prometheus-backup")
    ]
    return spec


def _without_name() -> Manifest:
    return {k: v for k, v in _OWN.items() if k != "name"}


def _spec_of_stateful_set(tmp_path: Path) -> Manifest:
    patch = _file({"prometheus": {"mode": "sidecar"}}, "patch.yaml")
    changed = _patched(tmp_path, _stateful_set(), patch)
    kubernetes_validate.validate(changed, NEWEST, strict=True)
    spec: Manifest = changed["spec"]["template"]["spec"]
    assert {c["name"] for c in spec["containers"]} == {"own", "prometheus-backup"}
    claim = {"name": "prometheus-storage", "persistentVolumeClaim": {"claimName": "claim"}}
    spec["volumes"].append(claim)  # as the StatefulSet does for its claims
    return spec


@pytest.mark.parametrize(
    ("made", "replica"),
    [
        (_spec_in_stack, "prometheus-0"),
        # The pod of a Deployment has a new name each time, and a repository one source.
        (_spec_in_community_chart, "prometheus"),
        (_spec_of_stateful_set, "prometheus-0"),
    ],
    ids=["kube-prometheus-stack", "prometheus-community", "statefulset"],
)
def test_sidecar_runs_in_the_pod_of_the_other_release(
    made: Any,
    replica: str,
    cluster: Cluster,
    source: PrometheusServer,
    bucket: S3Bucket,
    tmp_path: Path,
) -> None:
    spec = made(tmp_path)
    container = _container(spec)
    assert violations({**spec, "containers": [container]}) == []
    assert container["args"] == ["daily", "02:00"]
    container["args"] = ["backup"]
    volume = next(m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/prometheus")
    (storage,) = [v for v in spec["volumes"] if v["name"] == volume]
    cluster.claims[storage["persistentVolumeClaim"]["claimName"]] = source.data_dir
    (done,) = cluster.run({"spec": {**spec, "containers": [container]}})
    assert done.returncode == 0, done.stderr
    (key,) = [k for k in bucket.keys("prometheus-snapshots/") if k.endswith("/metadata.json")]
    assert yaml.safe_load(bucket.get(key))["labels"] == {"replica": replica}


def test_patch_of_the_operators_object_is_whole(tmp_path: Path) -> None:
    values = {"preset": "prometheus-operator", "mode": "sidecar", "snapshotMode": "blocks"}
    patch = yaml.safe_load(_file({"prometheus": values}, "patch.yaml"))
    assert patch.keys() == {"spec"}
    assert patch["spec"].keys() == {"containers", "volumes"}
    (mount, _) = _container(patch["spec"])["volumeMounts"]
    assert mount == {
        "name": "prometheus-k8s-db",
        "mountPath": "/prometheus",
        "subPath": "prometheus-db",
        "readOnly": True,
    }
    environment = {e["name"]: e.get("value") for e in _container(patch["spec"])["env"]}
    assert environment["SNAPSHOT_MODE"] == "blocks"
    # In kustomize, it is a patch of the object as well.
    patch |= {"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus"}
    patch["metadata"] = {"name": "k8s"}
    target = {**patch, "spec": {"replicas": 2}}
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(target))
    kustomization = {
        "resources": ["prometheus.yaml"],
        "patches": [{"patch": yaml.safe_dump(patch)}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    kubectl = find_kubectl()
    built = subprocess.run(
        [kubectl.path, "kustomize", tmp_path], capture_output=True, text=True, check=True
    )
    assert yaml.safe_load(built.stdout)["spec"] == {"replicas": 2, **patch["spec"]}


def test_sidecars_of_several_replicas_have_their_own_prefixes() -> None:
    values = {"prometheus": {"mode": "sidecar", "replicas": 2}, "verify": {"enabled": True}}
    spec = yaml.safe_load(_file(values, "patch.yaml"))["spec"]["template"]["spec"]
    own = {e["name"]: e.get("value") for e in _container(spec)["env"]}
    assert own["S3_PREFIX"] == "prometheus-snapshots-$(POD_NAME)"
    (pod,) = pods([only(objects(values), "CronJob", "prometheus-verify-1")])
    verify = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    assert verify["S3_PREFIX"] == "prometheus-snapshots-prometheus-1"


def test_sidecar_of_a_fleet_entry_has_its_own_address_labels_and_name() -> None:
    values = {
        "prometheuses": [
            {"name": "a", "mode": "sidecar", "preset": "custom", "labels": {"replica": "mine"}},
            {
                "name": "b",
                "mode": "sidecar",
                "preset": "custom",
                "scheme": "https",
                "port": 9443,
                "path": "/prom",
                "volume": "data",
            },
        ]
    }
    made = {}
    for name in "ab":
        text = _file(values, "values.yaml", f"prometheus-backup-sidecar-{name}")
        made[name] = yaml.safe_load(text)["server"]["sidecarContainers"]["prometheus-backup"]
    own = {n: {e["name"]: e.get("value") for e in c["env"]} for n, c in made.items()}
    assert own["a"]["PROMETHEUS_URL"] == "http://localhost:9090"
    assert own["b"]["PROMETHEUS_URL"] == "https://localhost:9443/prom"
    assert [own[n]["BACKUP_LABELS"] for n in "ab"] == ["replica=mine", "replica=b"]
    assert [own[n]["S3_PREFIX"] for n in "ab"] == [
        *("prometheus-snapshots-a", "prometheus-snapshots-b")
    ]
    assert made["b"]["volumeMounts"][0]["name"] == "data"


@pytest.mark.parametrize(
    ("prometheus", "kind", "name", "how"),
    [
        ({"statefulset": "prom"}, "statefulset", "prom", "strategic"),
        ({"preset": "prometheus-operator", "object": "main"}, "prometheus", "main", "merge"),
    ],
    ids=["statefulset", "prometheus-operator"],
)
def test_notes_name_the_object_to_patch(prometheus: Values, kind: str, name: str, how: str) -> None:
    notes = rendered({"prometheus": {**prometheus, "mode": "sidecar", "replicas": 3}})[NOTES]
    read, patch = (shlex.split(line) for line in notes.splitlines() if "sidecar-patch.yaml" in line)
    assert read[:6] == ["kubectl", "get", "configmap", "-n", "observability", read[5]]
    assert read[5:8] == ["prometheus-backup-sidecar", "-o", r"jsonpath={.data.patch\.yaml}"]
    assert patch[1:9] == ["patch", kind, "-n", "observability", name, "--type", how, "--patch-file"]
