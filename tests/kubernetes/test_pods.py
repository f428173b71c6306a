"""Runs the pods of the manifests with the built image, a real Prometheus and a real S3 server."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from tests.support.cluster import Cluster
from tests.support.contents import owners
from tests.support.kustomize import PROMETHEUS, Manifest, job_of, only, render
from tests.support.pages import DOCS, Page

PREFIX = "prometheus-snapshots"
_MINUTE = timedelta(minutes=1)


def _pod(folder: Path, kind: str = "CronJob") -> Manifest:
    pod: Manifest = job_of(only(render(folder), kind))["spec"]["template"]
    return pod


def _backup(cluster: Cluster) -> None:
    (done,) = cluster.run(_pod(PROMETHEUS / "backup"))
    assert done.returncode == 0, done.stderr


def _manifests(bucket: S3Bucket) -> list[Manifest]:
    keys = [key for key in bucket.keys(f"{PREFIX}/") if key.endswith("/metadata.json")]
    return [json.loads(bucket.get(key)) for key in keys]


def test_backup_pod_makes_a_backup(
    cluster: Cluster, source: PrometheusServer, bucket: S3Bucket
) -> None:
    _backup(cluster)
    (manifest,) = _manifests(bucket)
    assert manifest["labels"] == {"replica": "prometheus-0"}
    assert len(manifest["blocks"]) == 5, "four old ones and the head"
    assert list((source.data_dir / "snapshots").iterdir()) == [], "it may remove its snapshot"
    assert owners(source.data_dir) == {65534}


def test_missing_credentials_are_reported_and_not_retried(
    cluster: Cluster, bucket: S3Bucket
) -> None:
    cluster.secrets.clear()
    pod = _pod(PROMETHEUS / "backup")
    (done,) = cluster.run(pod)
    assert done.returncode == 12, done.stderr
    assert bucket.keys() == []
    rules = job_of(only(render(PROMETHEUS / "backup"), "CronJob"))["spec"]["podFailurePolicy"]
    assert done.returncode in rules["rules"][0]["onExitCodes"]["values"]


def test_other_user_than_prometheus_cannot_remove_the_snapshot(
    cluster: Cluster, source: PrometheusServer, bucket: S3Bucket
) -> None:
    """The reason why the manifests must use Prometheus' user, and the message otherwise."""
    pod = json.loads(json.dumps(_pod(PROMETHEUS / "backup")))
    pod["spec"]["securityContext"]["runAsUser"] = 1234
    (done,) = cluster.run(pod)
    assert done.returncode == 3, done.stderr
    assert len(_manifests(bucket)) == 1
    assert len(list((source.data_dir / "snapshots").iterdir())) == 1


def test_verify_pod_verifies_a_part_and_records_it(cluster: Cluster, bucket: S3Bucket) -> None:
    _backup(cluster)
    (done,) = cluster.run(_pod(PROMETHEUS / "verify"))
    assert done.returncode == 0, done.stderr
    kept = [key for key in bucket.keys(f"{PREFIX}/") if key.endswith("/rotation-checksum.json")]
    assert len(kept) == 1, "the next run goes on where this one ended"


def test_image_has_what_the_check_of_whole_blocks_needs(cluster: Cluster, bucket: S3Bucket) -> None:
    _backup(cluster)
    pod = json.loads(json.dumps(_pod(PROMETHEUS / "verify")))
    pod["spec"]["containers"][0]["args"] = ["verify", "latest", "--level", "tsdb"]
    (done,) = cluster.run(pod)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = [k for k in bucket.keys(f"{PREFIX}/") if k.endswith("/verification-tsdb.json")]
    assert json.loads(bucket.get(result))["verdict"] == "pass"


def test_verify_pod_fails_if_a_byte_differs(cluster: Cluster, bucket: S3Bucket) -> None:
    _backup(cluster)
    for key in bucket.keys(f"{PREFIX}/"):
        if key.endswith("/index"):
            bucket.put(key, bytes(len(bucket.get(key))))
    pod = json.loads(json.dumps(_pod(PROMETHEUS / "verify")))
    (container,) = pod["spec"]["containers"]
    assert container["args"][-1].startswith("next/")
    container["args"][-1] = "next/3"  # so that the damaged part is read in this test
    runs = [cluster.run(pod)[0] for _ in range(3)]
    codes = [done.returncode for done in runs]
    assert 41 in codes, "\n".join(done.stdout for done in runs)
    assert set(codes) <= {0, 41}


def test_drill_pod_starts_prometheus_on_the_backup_and_passes(
    cluster: Cluster, source: PrometheusServer, bucket: S3Bucket
) -> None:
    source.fill_head(metric="up")  # for the last half hour, which has no scrapes
    _backup(cluster)
    copied, drilled = cluster.run(_pod(PROMETHEUS / "drill"))
    assert copied.returncode == 0, copied.stderr
    assert drilled.returncode == 0, drilled.stdout + drilled.stderr
    (result,) = [
        key for key in bucket.keys(f"{PREFIX}/") if key.endswith("verification-drill.json")
    ]
    assert json.loads(bucket.get(result))["verdict"] == "pass"
    left = [path for path in cluster.folder.rglob("scratch/**/index") if path.is_file()]
    assert left == [], "what was restored is removed"


@pytest.mark.parametrize("path", ["/created", "/opt/prometheus-backup/created", "/etc/created"])
def test_only_volumes_are_writable(cluster: Cluster, path: str) -> None:
    pod = json.loads(json.dumps(_pod(PROMETHEUS / "backup")))
    (container,) = pod["spec"]["containers"]
    container["command"] = ["python3", "-c", f"open('/tmp/x', 'w'); open({path!r}, 'w')"]
    (done,) = cluster.run(pod)
    assert "Read-only file system" in done.stderr


def test_log_matches_the_page(cluster: Cluster, bucket: S3Bucket) -> None:
    page = Page(DOCS / "how-to" / "kubernetes.md").text
    shown = re.findall(r"^\d{4}-\S+Z info    (.*?)(?= \w+=)", page, re.MULTILINE)
    assert len(shown) > 5
    (done,) = cluster.run(_pod(PROMETHEUS / "backup"))
    messages = re.findall(r"^\S+Z info    (.*?)(?= \w+=)", done.stderr, re.MULTILINE)
    assert [message for message in messages if message in shown] == shown
    assert len(_manifests(bucket)) == 1


def test_other_commands_run_in_the_same_pod(cluster: Cluster) -> None:
    page = Page(DOCS / "how-to" / "kubernetes.md").text
    shown = re.findall(
        r"^ok    (\D*?: (?:reachable|Admin|the right|snapshots|write)[^:]*:.*)$", page, re.MULTILINE
    )
    pod = json.loads(json.dumps(_pod(PROMETHEUS / "backup")))
    pod["spec"]["containers"][0]["args"] = ["check"]
    (done,) = cluster.run(pod)
    assert done.returncode == 0, done.stdout
    assert len(shown) == 4
    assert [line for line in shown if f"ok    {line}\n" not in done.stdout] == []


def test_retention_is_that_of_the_config_map_unless_the_cronjob_has_a_value(
    cluster: Cluster,
) -> None:
    cluster.config_maps["prometheus-backup"]["RETENTION_DAILY"] = "90"
    del cluster.config_maps["prometheus-backup"]["RETENTION_YEARLY"]
    pod = json.loads(json.dumps(_pod(PROMETHEUS / "backup")))
    container = pod["spec"]["containers"][0]
    container["args"] = ["check"]
    (configured,) = cluster.run(pod)
    (entry,) = [e for e in container["env"] if e["name"] == "RETENTION_DAILY"]
    entry["value"] = "60"  # as `kubectl set env` and a patch do
    (patched,) = cluster.run(pod)

    assert "retention 90 daily, 12 monthly, 3 yearly" in configured.stdout
    assert "retention 60 daily, 12 monthly, 3 yearly" in patched.stdout
