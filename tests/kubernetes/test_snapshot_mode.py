"""`SNAPSHOT_MODE=blocks` on Kubernetes: the volume is read-only, in the chart and in kustomize."""

import json
from pathlib import Path

import pytest
import yaml

from devtools.chart import CHART
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from tests.support.cluster import Cluster
from tests.support.helm import objects
from tests.support.kustomize import (
    PROMETHEUS,
    Manifest,
    only,
    pods,
    render,
    with_components,
)
from tests.support.stored_backups import run_here

_EXAMPLE = CHART / "examples" / "without-admin-api.yaml"


def _backup(manifests: list[Manifest], name: str = "prometheus-backup") -> Manifest:
    (pod,) = pods([only(manifests, "CronJob", name)])
    spec: Manifest = pod["spec"]
    return spec


def _is_read_only(spec: Manifest) -> bool:
    """Return whether the data directory is. Volume and mount must agree."""
    (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if m["mountPath"] == "/prometheus"]
    (volume,) = [v for v in spec["volumes"] if v["name"] == mount["name"]]
    assert volume["persistentVolumeClaim"].get("readOnly") == mount.get("readOnly")
    return bool(mount.get("readOnly"))


def _own(spec: Manifest) -> dict[str, str | None]:
    return {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}


def test_each_prometheus_of_a_fleet_has_its_mode_and_layout() -> None:
    manifests = objects(
        {
            "prometheus": {"snapshotMode": "blocks"},
            "prometheuses": [
                {"name": "a", "statefulset": "a"},
                {"name": "b", "statefulset": "b", "snapshotMode": "admin-api"},
                {
                    "name": "c",
                    "statefulset": "c",
                    "layout": "archive",
                    "retention": {"daily": 7, "all": "48h", "history": "1y"},
                },
            ],
            "exporter": {"enabled": True},
        }
    )
    a, b, c = (_backup(manifests, f"prometheus-backup-{name}") for name in "abc")
    assert [_is_read_only(spec) for spec in (a, b, c)] == [True, False, True]
    assert [_own(spec).get("SNAPSHOT_MODE") for spec in (a, b, c)] == ["blocks", None, "blocks"]
    own = _own(c)
    assert (own["LAYOUT"], own["RETENTION_ALL"], own["RETENTION_HISTORY"]) == (
        *("archive", "48h", "1y"),
    )
    assert "LAYOUT" not in _own(a)
    text = only(manifests, "ConfigMap", "prometheus-backup-repositories")["data"]
    entries = yaml.safe_load(text["repositories.yaml"])["repositories"]
    kept = [{k: v for k, v in e.items() if k.startswith("retention")} for e in entries]
    assert kept == [
        {},
        {},
        {"retention_daily": 7, "retention_all": "48h", "retention_history": "1y"},
    ]


def test_component_equals_the_chart(tmp_path: Path) -> None:
    theirs = _backup(with_components(tmp_path, PROMETHEUS / "backup", "blocks"))
    ours = _backup(objects({"prometheus": {"snapshotMode": "blocks"}}))
    for spec in (ours, theirs):
        spec["containers"][0]["env"].sort(key=lambda entry: entry["name"])
    assert ours == theirs
    assert _is_read_only(theirs)


def test_component_reaches_the_second_replica(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, PROMETHEUS / "backup", "blocks", "replica-1")
    assert _is_read_only(_backup(manifests, "prometheus-backup-1"))


@pytest.mark.parametrize("source_of_pod", ["chart", "component"])
def test_backup_and_restore_with_a_read_only_volume(
    cluster: Cluster,
    source: PrometheusServer,
    bucket: S3Bucket,
    tmp_path: Path,
    source_of_pod: str,
) -> None:
    """The backup cannot change the volume; a Job that restores into it can."""
    if source_of_pod == "chart":
        manifests = objects(yaml.safe_load(_EXAMPLE.read_text()))
    else:
        manifests = with_components(tmp_path, PROMETHEUS / "backup", "blocks")
    cluster.add(manifests)
    cluster.config_maps["prometheus-backup"]["S3_ENDPOINT_URL"] = "http://s3.storage.svc:8333"
    cronjob = only(manifests, "CronJob")
    (checked,) = cluster.run(_job("check", cronjob=cronjob))
    assert "4 blocks can be held open" in checked.stdout
    assert checked.returncode == 0, checked.stdout
    (done,) = cluster.run(cronjob["spec"]["jobTemplate"]["spec"]["template"])
    assert done.returncode == 0, done.stderr
    assert not {".prometheus-backup", "snapshots"} & {p.name for p in source.data_dir.iterdir()}
    (key,) = [k for k in bucket.keys("prometheus-snapshots/") if k.endswith("/metadata.json")]
    manifest = json.loads(bucket.get(key))
    assert manifest["snapshot_mode"] == "blocks"
    assert manifest["format_version"] == (2 if source_of_pod == "chart" else 1)

    source.stop()
    lost = source.data_dir / min(manifest["blocks"], key=lambda b: b["min_time"])["ulid"]
    lost.rename(tmp_path / "lost")
    # In a cluster, a stopped pod has no address. Here, its address accepts connections.
    stopped = ["--prometheus-url", "http://localhost:1"]
    what = "--history" if source_of_pod == "chart" else "latest"
    (planned,) = cluster.run(_job("restore", what, "--dry-run", *stopped, cronjob=cronjob))
    assert planned.returncode == 0, planned.stderr
    assert not lost.exists()
    (restored,) = cluster.run(_job("restore", what, *stopped, cronjob=cronjob))
    assert restored.returncode == 0, restored.stderr
    assert (lost / "index").read_bytes() == (tmp_path / "lost" / "index").read_bytes()


def _job(*arguments: str, cronjob: Manifest) -> Manifest:
    done = run_here("job", *arguments, stdin=json.dumps(cronjob))
    assert done.returncode == 0, done.stderr
    template: Manifest = json.loads(done.stdout)["spec"]["template"]
    return template


def test_only_jobs_that_change_the_volume_may_write_to_it() -> None:
    cronjob = only(objects({"prometheus": {"snapshotMode": "blocks"}}), "CronJob")
    for arguments in (["check"], ["inspect"]):
        assert _is_read_only(_job(*arguments, cronjob=cronjob)["spec"]), arguments
    for arguments in (["restore", "latest"], ["restore", "latest", "--dry-run"], ["heal"]):
        assert not _is_read_only(_job(*arguments, cronjob=cronjob)["spec"]), arguments


def test_defaults_mount_the_volume_for_writing() -> None:
    assert not _is_read_only(_backup(objects({})))
    assert not _is_read_only(_backup(render(PROMETHEUS / "backup")))
