"""The Helm chart: its objects fit Kubernetes and equal those of the manifests, and its pods run."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from devtools.chart import CHART, README, SCHEMA
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.metrics.exposition import parse
from tests.kubernetes.test_manifests import NEWEST, OLDEST
from tests.support.cluster import Cluster
from tests.support.contents import owners
from tests.support.exporter import Served
from tests.support.helm import NOTES, objects, rendered
from tests.support.kustomize import PROMETHEUS, Manifest, containers, job_of, only, pods, render
from tests.support.pod_security import violations
from tests.support.started_cli import StartedCli
from tests.support.waiting import wait_until

_EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
_VALUES = [
    pytest.param({}, id="defaults"),
    *(pytest.param(yaml.safe_load(f.read_text()), id=f.stem) for f in _EXAMPLES),
]
Values = dict[str, Any]
_TIERS = ("daily", "monthly", "yearly")


def _example(name: str) -> Values:
    values: Values = yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text())
    return values


def _by_name(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    return {(m["kind"], m["metadata"]["name"]): m for m in manifests}


def _environment(manifest: Manifest) -> dict[str, Any]:
    (pod,) = pods([manifest])
    return {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("values", _VALUES)
def test_lint_finds_nothing(values: Values) -> None:
    report = helm_python.lint(CHART, values, strict=True, namespace="observability")
    warnings = [m for m in report["messages"] if m["severity"] > 1]
    assert (report["errors"], warnings) == ([], [])


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", _VALUES)
def test_objects_match_the_schemas(values: Values, version: str) -> None:
    manifests = objects(values)
    for manifest in manifests:
        if "monitoring.coreos.com" not in manifest["apiVersion"]:
            kubernetes_validate.validate(manifest, version, strict=True)
    names = [(m["kind"], m["metadata"]["namespace"], m["metadata"]["name"]) for m in manifests]
    assert len(names) == len({*names})
    assert all(m["metadata"]["labels"]["app"] for m in manifests)


@pytest.mark.parametrize("values", _VALUES)
def test_pods_meet_the_restricted_profile(values: Values) -> None:
    for pod in pods(objects(values)):
        assert violations(pod["spec"]) == []
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"].keys() == {"requests", "limits"}


@pytest.mark.parametrize(
    ("folder", "values"),
    [
        ("backup", {}),
        ("verify", {"verify": {"enabled": True}}),
        ("drill", {"drill": {"enabled": True}}),
        (
            "monitoring",
            {
                "exporter": {"enabled": True, "serviceMonitor": {"enabled": True}},
                "alerts": {"enabled": True},
                "dashboard": {"enabled": True},
            },
        ),
        (
            "overlays/prometheus-operator",
            {
                "prometheus": {"preset": "prometheus-operator"},
                "networkPolicy": {"prometheusIngress": True},
            },
        ),
        ("overlays/kube-prometheus-stack", {"prometheus": {"preset": "kube-prometheus-stack"}}),
    ],
)
def test_objects_equal_those_of_the_manifests(folder: str, values: Values) -> None:
    ours, theirs = _by_name(objects(values)), _by_name(render(PROMETHEUS / folder))
    always = _by_name(objects({})).keys()
    assert theirs.keys() <= ours.keys() <= theirs.keys() | always
    assert {name: ours[name] for name in theirs} == theirs


def test_second_replica_equals_that_of_the_manifests() -> None:
    """But for its start, and what the manifests need because they cannot compute a prefix."""
    ours = only(objects({"prometheus": {"replicas": 2}}), "CronJob", "prometheus-backup-1")
    folder = PROMETHEUS / "overlays" / "second-replica"
    theirs = only(render(folder), "CronJob", "prometheus-backup-1")
    assert _environment(ours)["S3_PREFIX"] == "prometheus-snapshots-1"
    assert _environment(theirs)["S3_PREFIX"] == "$(S3_PREFIX)-1"
    for cronjob in (ours, theirs):
        del cronjob["spec"]["schedule"]
        cronjob["metadata"]["labels"].pop("replica", None)
        container = job_of(cronjob)["spec"]["template"]["spec"]["containers"][0]
        own = ("S3_PREFIX", "POD_NAMESPACE", "METRICS_LABELS")
        container["env"] = [e for e in container["env"] if e["name"] not in own]
    assert ours == theirs


def test_release_name_of_the_stack_is_shortened_as_its_chart_does() -> None:
    """Its full name has at most 26 characters."""
    names = {
        "kube-prometheus-stack": "prometheus-kube-prometheus-stack-prometheus-0",
        "monitoring": "prometheus-monitoring-kube-prometheus-prometheus-0",
        "kps": "prometheus-kps-kube-prometheus-stack-prometheus-0",
        "my-kube-prometheus-stack": "prometheus-my-kube-prometheus-stack-prometheus-0",
    }
    for release, pod in names.items():
        values = {"prometheus": {"preset": "kube-prometheus-stack", "release": release}}
        labels = _environment(only(objects(values), "CronJob"))["BACKUP_LABELS"]
        assert labels == f"replica={pod}"


def test_shards_have_the_operators_names() -> None:
    manifests = objects({"prometheus": {"preset": "prometheus-operator", "shards": 2}})
    second = only(manifests, "CronJob", "prometheus-backup-shard-1")
    pod = "prometheus-k8s-shard-1-0"
    assert _environment(second)["PROMETHEUS_URL"] == f"http://{pod}.prometheus-operated:9090"
    storage = pods([second])[0]["spec"]["volumes"][0]
    assert storage["persistentVolumeClaim"] == {"claimName": f"prometheus-k8s-db-{pod}"}


@pytest.mark.parametrize(
    ("credentials", "servers"),
    [
        ("auto", {"169.254.170.23/32", "169.254.169.254/32", "169.254.169.252/32"}),
        ("secret", set()),
        ("irsa", set()),
        ("pod-identity", {"169.254.170.23/32"}),
        ("instance", {"169.254.169.254/32"}),
        ("gke", {"169.254.169.254/32", "169.254.169.252/32"}),
        ("azure", set()),
    ],
)
def test_credentials_decide_egress_secret_and_annotation(
    credentials: str, servers: set[str]
) -> None:
    identity = dict.fromkeys(("backup", "verify", "drill", "exporter"), "the identity")
    manifests = objects({"credentials": {"type": credentials, "identities": identity}})
    policy = json.dumps(only(manifests, "NetworkPolicy"))
    assert {*re.findall(r"169[\d.]+/32", policy)} == servers
    (pod,) = pods(manifests)
    keys = [e for e in pod["spec"]["containers"][0]["env"] if e["name"].startswith("AWS_")]
    assert len(keys) == (2 if credentials in ("auto", "secret") else 0)
    assert all(e["valueFrom"]["secretKeyRef"].get("optional") for e in keys) == (
        credentials != "secret"
    )
    annotated = only(manifests, "ServiceAccount")["metadata"].get("annotations", {})
    assert [*annotated.values()] == ["the identity"] * (credentials in ("irsa", "gke", "azure"))
    label = "azure.workload.identity/use"
    assert (label in pod["metadata"]["labels"]) == (credentials == "azure")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"retention": {"dayly": 3}}, "dayly"),
        ({"retention": {"daily": -1}}, "daily"),
        ({"retention": {"daily": "thirty"}}, "daily"),
        ({"settings": {"RETENTION_DAILLY": "1"}}, "RETENTION_DAILLY"),
        ({"settings": {"S3_PREFIX": "a"}}, "S3_PREFIX"),
        ({"settings": {"SNAPSHOT_MODE": "blocks"}}, "SNAPSHOT_MODE"),
        ({"prometheus": {"snapshotMode": "block"}}, "snapshotMode"),
        ({"retention": {"all": "48"}}, "all"),
        ({"prometheus": {"retention": {"history": "0d"}}}, "history"),
        ({"repository": {"layout": "Archive"}}, "layout"),
        ({"repository": {"prefix": ""}}, "prefix"),
        ({"backup": {"interval": "hourly"}}, "interval"),
        ({"labels": {"my cluster": "a"}}, "my cluster"),
        ({"prometheus": {"preset": "helm"}}, "preset"),
        ({"prometheus": {"name": "a"}}, "name"),
        ({"prometheuses": [{"preset": "statefulset"}]}, "name"),
        ({"prometheuses": [{"name": "A B"}]}, "name"),
        ({"repository": {"url": "s4://bucket"}}, "url"),
        ({"backup": {"schedule": "nightly"}}, "schedule"),
        ({"backup": {"resources": {"limits": {"memory": "much"}}}}, "memory"),
        ({"image": {"tag": ""}}, "tag"),
        ({"colour": "red"}, "colour"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_the_schema(values: Values, reason: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=reason):
        rendered(values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"prometheuses": [{"name": "a"}, {"name": "a"}]}, "would have the same name"),
        (
            {
                "prometheuses": [
                    {"name": "a", "preset": "prometheus-operator", "replicas": 2},
                    {"name": "a-1"},
                ]
            },
            "would have the same name",
        ),
        (
            {"prometheuses": [{"name": "a"}, {"name": "b", "statefulset": "b", "prefix": "x"}]}
            | {"repository": {"prefix": "x"}, "prometheus": {"prefix": "x"}},
            "in the same folder, s3://health-tracker-prometheus-backups/x",
        ),
        (
            {
                "prometheuses": [
                    {"name": "a", "prefix": "x"},
                    {"name": "b", "statefulset": "b", "prefix": "x/y"},
                ]
            },
            "which lies in s3://health-tracker-prometheus-backups/x",
        ),
        (
            {"prometheuses": [{"name": "a"}, {"name": "b"}]},
            "back up the same volume, observability/prometheus-storage-prometheus-0",
        ),
        ({"prometheuses": [{"name": "a" * 35}]}, "give the entry of prometheuses"),
        ({"namePrefix": "a" * 36}, "give namePrefix a shorter name"),
        ({"repository": {"bucket": ""}}, "set repository.bucket"),
        ({"retention": dict.fromkeys(_TIERS, 0)}, "keeps nothing"),
        (
            {"prometheuses": [{"name": "a", "retention": dict.fromkeys(_TIERS, 0)}]},
            "prometheus-backup-a (observability/prometheus-0): its retention keeps nothing",
        ),
        ({"backup": {"schedule": "0 26 * * *"}}, 'its hour is "26"'),
        ({"backup": {"schedule": "60 2 * * *"}}, 'its minute is "60"'),
        ({"verify": {"enabled": True, "schedule": "0 2 * * 7"}}, 'its day of the week is "7"'),
        ({"drill": {"enabled": True, "schedule": "0 2 0 * *"}}, 'its day of the month is "0"'),
        ({"prometheus": {"shards": 2}}, "only the operator has shards"),
        ({"prometheus": {"preset": "custom"}}, "needs url"),
        ({"prometheus": {"replicas": 2, "pod": "a-0"}}, "those of a single pod"),
        ({"credentials": {"type": "irsa"}}, "needs credentials.identities.backup"),
        (
            {"prometheuses": [{"name": "a"}], "backup": {"schedule": "0 23 * * *"}},
            "start after midnight",
        ),
        (
            {"prometheuses": [{"name": "a"}], "backup": {"schedule": "*/5 2 * * *"}},
            "its minute must be a number",
        ),
        (
            {"prometheus": {"mode": "sidecar"}, "backup": {"schedule": "0 */6 * * *"}},
            "a sidecar makes a backup each day",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_that_contradict_each_other_fail_with_the_reason(
    values: Values, reason: str
) -> None:
    with pytest.raises(helm_python.HelmRenderError) as error:
        rendered(values)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "schedule", ["0 * * * *", "*/15 0-6/2 1,15 * *", "30 2 * JAN-mar MON-FRI", "0 2 31 12 sun"]
)
def test_schedules_of_kubernetes_are_accepted(schedule: str) -> None:
    manifests = objects({"backup": {"schedule": schedule}})
    assert only(manifests, "CronJob")["spec"]["schedule"] == schedule


def test_two_releases_in_one_namespace_select_nothing_of_each_other() -> None:
    enabled = {name: {"enabled": True} for name in ("verify", "drill")}
    exporter = {"enabled": True, "serviceMonitor": {"enabled": True}}
    values = {**enabled, "exporter": exporter, "networkPolicy": {"prometheusIngress": True}}
    first, second = objects(values), objects({**values, "namePrefix": "b-"})
    assert not {*_by_name(first)} & {*_by_name(second)}
    for own, other in ((first, second), (second, first)):
        labels = [m["metadata"]["labels"] for m in own if m["kind"] == "Service"]
        labels += [p["metadata"]["labels"] for p in pods(own)]
        assert all(any(_selects(s, at) for at in labels) for s in _selectors(own))
        assert not [s for s in _selectors(other) if any(_selects(s, at) for at in labels)]


def _selectors(manifests: list[Manifest]) -> list[dict[str, str]]:
    """Return what selects pods and Services of the release, from whichever kind of object."""
    text = json.dumps([m["spec"] for m in manifests if m["kind"] != "CronJob" and "spec" in m])
    found = re.findall(r'"(?:matchLabels|selector)": (\{"app": "[^"]*"\})', text)
    assert found
    return [json.loads(selector) for selector in found]


def _selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def _fleet(size: int) -> Values:
    entries = [
        {"name": f"team-{n}", "object": f"team-{n}", "preset": "prometheus-operator"}
        for n in range(size)
    ]
    jobs = {job: {"enabled": True} for job in ("verify", "drill")}
    return {"prometheuses": entries, "prometheus": {"replicas": 2}, **jobs}


def test_fleet_of_fifty_shares_nothing() -> None:
    manifests = objects(_fleet(25))
    backups = [m for m in manifests if m["kind"] == "CronJob" and "backup" in m["metadata"]["name"]]
    assert len(backups) == 50
    claims = {
        pods([m])[0]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] for m in backups
    }
    environments = [_environment(m) for m in backups]
    for key in ("S3_PREFIX", "PROMETHEUS_URL", "BACKUP_LABELS"):
        assert len({e[key] for e in environments}) == 50, key
    assert len(claims) == 50
    for manifest in manifests:
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


def _starts(values: Values) -> dict[str, str]:
    cronjobs = [m for m in objects(values) if m["kind"] == "CronJob"]
    return {m["metadata"]["name"]: m["spec"]["schedule"] for m in cronjobs}


def test_starts_of_a_fleet_are_spread_and_stay_when_it_grows() -> None:
    small, large = _starts(_fleet(5)), _starts(_fleet(25))
    assert small.items() <= large.items(), "the start of an entry does not depend on others"
    minutes = [
        int(hour) * 60 + int(minute)
        for name, (minute, hour, *_) in ((n, s.split()) for n, s in large.items())
        if name.startswith("prometheus-backup")
    ]
    assert 120 <= min(minutes) <= max(minutes) < 120 + 180
    assert len({*minutes}) > 35, "few start in the same minute"
    assert max(minutes) - min(minutes) > 90
    assert {*_starts({**_fleet(2), "staggerMinutes": 0}).values()} == {
        "0 2 * * *",
        "0 5 * * *",
        "0 6 * * 0",
    }


def test_each_namespace_of_a_fleet_has_what_its_pods_refer_to() -> None:
    manifests = objects(_example("fleet"))
    there = {(m["kind"], m["metadata"]["namespace"], m["metadata"]["name"]) for m in manifests}
    for manifest in manifests:
        for pod in pods([manifest]):
            namespace = manifest["metadata"]["namespace"]
            spec = pod["spec"]
            assert ("ServiceAccount", namespace, spec["serviceAccountName"]) in there
            for source in spec["containers"][0]["envFrom"]:
                assert ("ConfigMap", namespace, source["configMapRef"]["name"]) in there
            app = pod["metadata"]["labels"]["app"]
            assert ("NetworkPolicy", namespace, app) in there


def test_every_value_is_described_and_in_the_schema() -> None:
    assert not re.search(r"\|\s*\|\n", README.read_text().partition("| --- |")[2])
    described = {*re.findall(r"^\| `([\w.]+)`", README.read_text(), re.MULTILINE)}
    document = json.loads(SCHEMA.read_text())
    entry = document["$defs"]["prometheus"]["properties"].keys() - {"name"}
    assert {f"prometheus.{name}" for name in entry} <= described
    assert document["properties"].keys() - {"global"} <= described


def test_metadata_is_that_of_the_program() -> None:
    with helm_python.Chart.load(CHART) as chart:
        metadata, image = chart.metadata, chart.values["image"]
    assert metadata["appVersion"] == image["tag"]
    assert f"{image['repository']}:{image['tag']}" == "health-tracker/prometheus-backup:1.0.0"


def test_package_contains_the_linked_files(tmp_path: Path) -> None:
    archive = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(archive) as chart:
        packed = chart.render({"alerts": {"enabled": True}}, name="a", namespace="b")
    rules = next(text for name, text in packed.items() if name.endswith("monitoring.yaml"))
    assert "PrometheusBackupMissing" in rules


def test_notes_name_the_cronjob_and_the_secret() -> None:
    notes = rendered({})[NOTES]
    assert (
        "create job -n observability prometheus-backup-first --from=cronjob/prometheus-backup"
        in notes
    )
    assert "prometheus-backup-s3-credentials" in notes


def _run_backup(cluster: Cluster, cronjob: Manifest) -> None:
    (done,) = cluster.run(job_of(cronjob)["spec"]["template"])
    assert done.returncode == 0, done.stderr


def _use(cluster: Cluster, manifests: list[Manifest]) -> None:
    cluster.add(manifests)
    cluster.config_maps["prometheus-backup"]["S3_ENDPOINT_URL"] = "http://s3.storage.svc:8333"


def _labels(bucket: S3Bucket, prefix: str) -> list[dict[str, str]]:
    keys = [key for key in bucket.keys(f"{prefix}/") if key.endswith("/metadata.json")]
    return [json.loads(bucket.get(key))["labels"] for key in keys]


def test_pods_of_one_prometheus_run(
    cluster: Cluster, source: PrometheusServer, bucket: S3Bucket
) -> None:
    manifests = objects(_example("everything"))
    _use(cluster, manifests)
    source.fill_head(metric="up")
    _run_backup(cluster, only(manifests, "CronJob", "prometheus-backup"))
    assert _labels(bucket, "prometheus-snapshots") == [
        {"cluster": "production", "replica": "prometheus-0"}
    ]
    for name in ("prometheus-verify", "prometheus-drill"):
        done = cluster.run(job_of(only(manifests, "CronJob", name))["spec"]["template"])
        assert done[-1].returncode == 0, done[-1].stdout + done[-1].stderr
    assert owners(source.data_dir) == {65534}


def test_pod_of_the_operators_second_replica_runs(
    cluster: Cluster, source: PrometheusServer, bucket: S3Bucket, open_path: Path
) -> None:
    values = copy.deepcopy(_example("prometheus-operator"))
    values["prometheus"] |= {"uid": 65534, "gid": 65534}  # the user of this Prometheus
    manifests = objects(values)
    _use(cluster, manifests)
    volume = open_path / "volume"
    volume.mkdir()
    (volume / "prometheus-db").symlink_to(source.data_dir)
    cluster.claims["prometheus-k8s-db-prometheus-k8s-1"] = volume
    _run_backup(cluster, only(manifests, "CronJob", "prometheus-backup-1"))
    assert _labels(bucket, "prometheus-snapshots-1") == [{"replica": "prometheus-k8s-1"}]
    (verified,) = cluster.run(
        job_of(only(manifests, "CronJob", "prometheus-verify-1"))["spec"]["template"]
    )
    assert verified.returncode == 0, verified.stderr
    assert [key for key in bucket.keys("prometheus-snapshots-1/") if "rotation" in key]


def test_pod_of_a_fleet_entry_runs(cluster: Cluster, bucket: S3Bucket) -> None:
    manifests = objects(_example("fleet"))
    _use(cluster, manifests)
    _run_backup(cluster, only(manifests, "CronJob", "prometheus-backup-legacy"))
    assert _labels(bucket, "prometheus-snapshots-legacy") == [
        {"cluster": "production", "replica": "prometheus-0"}
    ]


def test_exporter_of_a_fleet_serves_all_its_repositories(
    cluster: Cluster, bucket: S3Bucket, tmp_path: Path
) -> None:
    manifests = objects(_example("fleet"))
    _use(cluster, manifests)
    _run_backup(cluster, only(manifests, "CronJob", "prometheus-backup-legacy"))
    (container,) = pods([only(manifests, "Deployment")])[0]["spec"]["containers"]
    text = only(manifests, "ConfigMap", "prometheus-backup-repositories")["data"]
    file = tmp_path / "repositories.yaml"
    file.write_text(text["repositories.yaml"])
    mounted = [m["mountPath"] for m in container["volumeMounts"]]
    assert f"{mounted[0]}/repositories.yaml" == container["args"][-1]
    arguments = [str(file) if a == container["args"][-1] else a for a in container["args"]]
    settings = {**cluster.config_maps["prometheus-backup"], **bucket.endpoint.environment()}
    with StartedCli(
        *(a.replace(":9879", "127.0.0.1:0") for a in arguments),
        env={**settings, "S3_ENDPOINT_URL": bucket.endpoint.url},
        directory=tmp_path / "run",
    ) as started:
        served = Served(started)
        wait_until(lambda: _served(served, "repository_readable") >= 8)
        page = list(parse(served.get("/metrics").text))
    good = {s.labels["cronjob"]: s for s in page if s.name == "prometheus_backup_good_backups"}
    backups = [m for m in manifests if m["metadata"]["name"].startswith("prometheus-backup-")]
    assert good.keys() == {m["metadata"]["name"] for m in backups if m["kind"] == "CronJob"}
    assert {name for name, s in good.items() if s.value} == {"prometheus-backup-legacy"}
    assert {s.labels["cluster"] for s in good.values()} == {"production"}
    own = good["prometheus-backup-payments-shard-1-1"].labels
    assert (own["replica"], own["team"]) == ("prometheus-payments-shard-1-1", "payments")
    assert own["namespace"] == "observability"
    kept = {s.labels["cronjob"] for s in page if s.name == "prometheus_backup_backups"}
    assert kept == good.keys()


def _served(served: Served, metric: str) -> int:
    names = [s.name for s in parse(served.get("/metrics").text)]
    return names.count(f"prometheus_backup_{metric}")


def test_pushed_metrics_have_the_labels_of_the_exporter() -> None:
    """The alerts join both by cluster and replica."""
    values = {**_example("fleet"), "pushgateway": {"url": "http://pushgateway.monitoring:9091"}}
    manifests = objects(values)
    text = only(manifests, "ConfigMap", "prometheus-backup-repositories")["data"]
    exported = {
        e["labels"]["cronjob"]: e["labels"]
        for e in yaml.safe_load(text["repositories.yaml"])["repositories"]
    }
    for kind in ("backup", "verify", "drill"):
        manifest = only(manifests, "CronJob", f"prometheus-{kind}-payments-1")
        given = _environment(manifest)["METRICS_LABELS"].replace(
            "$(POD_NAMESPACE)", "observability"
        )
        pushed = dict(pair.split("=") for pair in given.split(","))
        assert pushed == exported["prometheus-backup-payments-1"]
        policy = only(
            [m for m in manifests if m["metadata"]["namespace"] == "observability"],
            "NetworkPolicy",
            f"prometheus-{kind}",
        )
        assert policy["spec"]["egress"][-1]["ports"] == [{"protocol": "TCP", "port": 9091}]
