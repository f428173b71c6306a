"""The parts of the backup manifests that users rely on: names, labels, keys, limits."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from prometheus_backup.settings import SETTINGS
from tests.support.kustomize import (
    PROMETHEUS,
    Manifest,
    job_of,
    only,
    pods,
    render,
    with_components,
)

OVERLAYS = PROMETHEUS / "overlays"


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    return render(PROMETHEUS / "backup")


@pytest.fixture(scope="module")
def cronjob(manifests: list[Manifest]) -> Manifest:
    return only(manifests, "CronJob")


def _environment(pod: Manifest) -> dict[str, Any]:
    return {entry["name"]: entry for entry in pod["spec"]["containers"][0]["env"]}


def test_objects_have_their_documented_names(manifests: list[Manifest]) -> None:
    names = sorted((m["kind"], m["metadata"]["name"]) for m in manifests)
    kinds = ("ConfigMap", "CronJob", "NetworkPolicy", "ServiceAccount")
    assert names == [(kind, "prometheus-backup") for kind in kinds]


def test_schedule_and_limits(cronjob: Manifest) -> None:
    spec = cronjob["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 2 * * *", "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 3)
    assert spec["suspend"] is False, "applied again, it ends a suspension"
    job, day = spec["jobTemplate"]["spec"], 24 * 60 * 60
    assert job["backoffLimit"] <= 2
    # A hanging run is ended before the next one, even if it was started late.
    assert spec["startingDeadlineSeconds"] + job["activeDeadlineSeconds"] < day
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_permanent_failures_are_not_retried(cronjob: Manifest) -> None:
    failing, moved = job_of(cronjob)["spec"]["podFailurePolicy"]["rules"]
    assert failing["action"] == "FailJob"
    assert failing["onExitCodes"]["values"] == [2, 3, 10, 11, 12, 14, 21, 22, 40]
    (container,) = job_of(cronjob)["spec"]["template"]["spec"]["containers"]
    assert failing["onExitCodes"]["containerName"] == container["name"]
    assert moved["action"] == "Ignore"


def test_every_object_has_the_label(manifests: list[Manifest]) -> None:
    """So that `kubectl get cronjob,job,pod -l app=prometheus-backup` shows all of it."""
    for manifest in manifests:
        assert manifest["metadata"]["labels"] == {"app": "prometheus-backup"}
    job = job_of(only(manifests, "CronJob"))
    assert job["metadata"]["labels"] == {"app": "prometheus-backup"}
    assert job["spec"]["template"]["metadata"]["labels"] == {"app": "prometheus-backup"}
    policy = only(manifests, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == {"app": "prometheus-backup"}


def test_pod_runs_on_the_node_and_with_the_user_of_prometheus(cronjob: Manifest) -> None:
    spec = job_of(cronjob)["spec"]["template"]["spec"]
    (term,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    (user, group) = (spec["securityContext"][who] for who in ("runAsUser", "runAsGroup"))
    assert (user, group) == (65534, 65534)
    (storage,) = [v for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert storage["persistentVolumeClaim"] == {"claimName": "prometheus-storage-prometheus-0"}
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["name"] == storage["name"]]
    assert mount["mountPath"] == SETTINGS["data_dir"].default
    assert "readOnly" not in mount


def test_retention_comes_from_the_config_map(cronjob: Manifest) -> None:
    """The entries of `env` are where users look; they may put a `value` there."""
    environment = _environment(job_of(cronjob)["spec"]["template"])
    tiers = {n: e["value"] for n, e in environment.items() if n.startswith("RETENTION_")}
    assert tiers == {
        "RETENTION_DAILY": "$(RETENTION_DAILY)",
        "RETENTION_MONTHLY": "$(RETENTION_MONTHLY)",
        "RETENTION_YEARLY": "$(RETENTION_YEARLY)",
    }
    data = only(render(PROMETHEUS / "backup"), "ConfigMap")["data"]
    assert {n: data[n] for n in tiers} == {
        "RETENTION_DAILY": "30",
        "RETENTION_MONTHLY": "12",
        "RETENTION_YEARLY": "3",
    }


def test_environment_has_url_and_secret_keys(cronjob: Manifest) -> None:
    environment = _environment(job_of(cronjob)["spec"]["template"])
    url = "http://prometheus-0.prometheus:9090"
    assert environment["PROMETHEUS_URL"]["value"] == url, "in the namespace of the job, any"
    keys = {
        name: environment[name]["valueFrom"]["secretKeyRef"]
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }
    assert {name: ref["key"] for name, ref in keys.items()} == {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    }
    for ref in keys.values():
        assert ref["name"] == "prometheus-backup-s3-credentials"
        assert ref["optional"] is True, "IRSA must work without the Secret"


def test_every_variable_is_a_known_setting(manifests: list[Manifest]) -> None:
    known = {name for s in SETTINGS.values() for name in (s.env, *s.also_env)}
    known |= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    (pod,) = pods(manifests)
    given = {*_environment(pod), *only(manifests, "ConfigMap")["data"]}
    assert given <= known


def test_resources(cronjob: Manifest) -> None:
    (container,) = job_of(cronjob)["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "2Gi"},
    }
    assert container["image"] == "health-tracker/prometheus-backup:1.0.0"


def test_network_policy_allows_only_prometheus_dns_s3_and_credentials(
    manifests: list[Manifest],
) -> None:
    policy = only(manifests, "NetworkPolicy")["spec"]
    ports = [[p["port"] for p in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[9090], [53, 53], [443], [80], [988]]
    servers = [[to["ipBlock"]["cidr"] for to in rule["to"]] for rule in policy["egress"][3:]]
    assert servers == [["169.254.170.23/32", "169.254.169.254/32"], ["169.254.169.252/32"]]
    assert "ingress" not in policy  # the backup's pods listen on no port


def _names(manifests: list[Manifest], name: str = "prometheus-backup") -> dict[str, Any]:
    """Return everything in the manifests that names the Prometheus."""
    pod = job_of(only(manifests, "CronJob", name))["spec"]["template"]
    spec, environment = pod["spec"], _environment(pod)
    affinity = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    egress = only(manifests, "NetworkPolicy", name)["spec"]["egress"][0]["to"]
    return {
        "url": environment["PROMETHEUS_URL"]["value"],
        "labels": environment["BACKUP_LABELS"]["value"],
        "claim": spec["volumes"][0]["persistentVolumeClaim"]["claimName"],
        "subPath": spec["containers"][0]["volumeMounts"][0]["subPath"],
        "uid": str(spec["securityContext"]["runAsUser"]),
        "gid": str(spec["securityContext"]["runAsGroup"]),
        "pod": affinity[0]["labelSelector"]["matchLabels"]["statefulset.kubernetes.io/pod-name"],
        "egress": egress[0]["podSelector"]["matchLabels"]["statefulset.kubernetes.io/pod-name"],
    }


def test_each_name_follows_from_the_stateful_set(manifests: list[Manifest]) -> None:
    given = yaml.safe_load((PROMETHEUS / "backup" / "prometheus.yaml").read_text())["data"]
    pod = f"{given['statefulset']}-{given['replica']}"
    assert pod == "prometheus-0"
    assert _names(manifests) == {
        "url": f"{given['scheme']}://{pod}.{given['service']}",
        "labels": f"{given['labels']}{pod}",
        "claim": f"{given['volume']}-{pod}",
        "subPath": given["subPath"],
        "uid": given["uid"],
        "gid": given["gid"],
        "pod": pod,
        "egress": pod,
    }


def test_names_that_follow_no_rule_can_be_set_one_by_one(tmp_path: Path) -> None:
    own = {
        "pod": "server-0",
        "url": "https://prometheus.example.com/path",
        "claim": "data",
        "labels": "cluster=a,replica=b",
    }
    names = _names(with_components(tmp_path, PROMETHEUS / "backup", "names", **_merged(**own)))
    assert {name: names[name] for name in own} == own


def test_labels_of_the_user_come_before_that_of_the_pod(tmp_path: Path) -> None:
    manifests = with_components(
        tmp_path,
        PROMETHEUS / "backup",
        "statefulset",
        "names",
        **_merged(labels="cluster=production,replica=", statefulset="prom-0-0"),
    )
    names = _names(manifests)
    assert names["labels"] == "cluster=production,replica=prom-0-0-0"
    assert names["claim"] == "prometheus-storage-prom-0-0-0"


def _merged(**literals: str) -> dict[str, Any]:
    """Return the generator that changes prometheus.yaml, as the page shows it."""
    generator = {
        "name": "prometheus",
        "namespace": "observability",
        "behavior": "merge",
        "options": {"disableNameSuffixHash": True},
        "literals": [f"{name}={value}" for name, value in literals.items()],
    }
    return {"configMapGenerator": [generator]}


def test_operator_overlay_has_the_operators_names() -> None:
    manifests = render(OVERLAYS / "prometheus-operator")
    assert _names(manifests) == {
        "url": "http://prometheus-k8s-0.prometheus-operated:9090",
        "labels": "replica=prometheus-k8s-0",
        "claim": "prometheus-k8s-db-prometheus-k8s-0",
        "subPath": "prometheus-db",
        "uid": "1000",
        "gid": "2000",
        "pod": "prometheus-k8s-0",
        "egress": "prometheus-k8s-0",
    }
    ingress = only(manifests, "NetworkPolicy", "prometheus-backup-to-prometheus")["spec"]
    assert list(ingress["podSelector"]["matchLabels"].values()) == ["prometheus-k8s-0"]


def test_chart_overlay_has_the_charts_names() -> None:
    names = _names(render(OVERLAYS / "kube-prometheus-stack"))
    pod = "prometheus-kube-prometheus-stack-prometheus-0"
    assert names["pod"] == names["egress"] == pod
    assert names["claim"] == f"prometheus-kube-prometheus-stack-prometheus-db-{pod}"
    assert (names["uid"], names["subPath"]) == ("1000", "prometheus-db")


def test_second_replica_has_its_own_names_labels_and_prefix() -> None:
    manifests = render(OVERLAYS / "second-replica")
    first, second = _names(manifests), _names(manifests, "prometheus-backup-1")
    assert first == _names(render(PROMETHEUS / "backup"))
    own = {name for name in first if first[name] != second[name]}
    assert own == {"url", "labels", "claim", "pod", "egress"}
    cronjob = only(manifests, "CronJob", "prometheus-backup-1")
    spec = job_of(cronjob)["spec"]["template"]["spec"]
    # Next to the first one's prefix, not below it, whatever the ConfigMap says.
    assert _environment({"spec": spec})["S3_PREFIX"]["value"] == "$(S3_PREFIX)-1"
    assert spec["serviceAccountName"] == "prometheus-backup"
    assert [m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount"] == [
        "prometheus-backup"
    ]
