"""docs/how-to/kubernetes.md: its commands match the manifests and print the shown output."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from devtools.aws_cli import AwsCli
from devtools.fetch_container_tools import find_kubectl
from devtools.s3 import S3Endpoint
from devtools.seaweedfs import SeaweedFS
from tests.support.kustomize import PROMETHEUS, Manifest, containers, job_of, only, pods, render
from tests.support.pages import DOCS, ROOT, Page, kubectl_commands

PAGE = Page(DOCS / "how-to" / "kubernetes.md")
_LINES = [line for block in PAGE.blocks("bash") for line in block.text.splitlines()]
_KUBECTL = [words for line in _LINES for words in kubectl_commands(line)]
_JOBS = {f"prometheus-{name}": render(PROMETHEUS / name) for name in ("backup", "verify", "drill")}


def _kubectl(*arguments: str) -> str:
    kubectl = find_kubectl()
    return subprocess.run(
        [str(kubectl.path), *arguments],
        cwd=ROOT,
        env={**os.environ, **kubectl.environment, "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _output_after(command: str) -> list[str]:
    """Return the output block after a block with this command."""
    blocks = PAGE.blocks()
    (at,) = [n for n, b in enumerate(blocks) if command in b.text.splitlines()]
    return next(b for b in blocks[at:] if not b.language).text.splitlines()


def _applied(manifest: Manifest) -> str:
    group = manifest["apiVersion"].rpartition("/")[0]
    kind = manifest["kind"].lower() + (f".{group}" if group else "")
    return f"{kind}/{manifest['metadata']['name']}"


@pytest.mark.parametrize("folders", [["backup"], ["verify", "drill"]])
def test_apply_prints_the_created_objects(folders: list[str]) -> None:
    command = f"kubectl apply -k infrastructure/kubernetes/prometheus/{folders[0]}/"
    made = [_applied(m) for folder in folders for m in render(PROMETHEUS / folder)]
    assert _output_after(command) == [f"{name} created" for name in made]


def test_delete_prints_the_deleted_objects() -> None:
    shown = _output_after("kubectl delete -k infrastructure/kubernetes/prometheus/backup/")
    gone = [_applied(m).partition("/") for m in render(PROMETHEUS / "backup")]
    assert shown == [
        f'{kind} "{name}" deleted from observability namespace' for kind, _, name in gone
    ]


def test_applied_folders_exist() -> None:
    folders = {words[words.index("-k") + 1] for words in _KUBECTL if "-k" in words}
    assert len(folders) == 5
    for folder in folders:
        assert render(ROOT / folder.rstrip("/"))


def test_commands_use_existing_objects() -> None:
    commands = [words for words in _KUBECTL if "-n" in words]
    assert len(commands) > 16
    for words in commands:
        assert words[words.index("-n") + 1] == "observability"
        for name in re.findall(r"cronjob[ /](\S+)", " ".join(w for w in words if w != "-n")):
            if name != "observability":
                assert only(_JOBS[name], "CronJob", name)
        if "-l" in words:
            label = words[words.index("-l") + 1].removesuffix(",!command")
            (job,) = [job_of(m) for m in _JOBS[label.removeprefix("app=")] if "Job" in m["kind"]]
            assert job["metadata"]["labels"] == {"app": label.removeprefix("app=")}
        if "-c" in words and "exec" not in words:
            (pod,) = pods(_JOBS[words[words.index("-c") + 1]])
            assert [c["name"] for c in pod["spec"]["containers"]] == [words[words.index("-c") + 1]]


def test_shown_cronjob_matches_the_manifest() -> None:
    head, line = _output_after("kubectl get cronjob -n observability prometheus-backup")
    fields = dict(zip(re.split(r"\s{2,}", head), re.split(r"\s{2,}", line), strict=True))
    spec = only(_JOBS["prometheus-backup"], "CronJob")["spec"]
    assert (fields["SCHEDULE"], fields["TIMEZONE"]) == (spec["schedule"], spec["timeZone"])


def test_secret_has_the_keys_that_the_jobs_need() -> None:
    (line,) = [line for line in _LINES if line.startswith("kubectl create secret")]
    words = [*shlex.split(line)[1:], "--dry-run=client"]
    assert _kubectl(*words).replace(" (dry run)", "").splitlines() == _output_after(line)
    secret = yaml.safe_load(_kubectl(*words, "-o", "yaml"))
    (pod,) = pods(_JOBS["prometheus-backup"])
    (container,) = pod["spec"]["containers"]
    refs = [e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e]
    assert {ref["name"] for ref in refs} == {secret["metadata"]["name"]}
    assert {ref["key"] for ref in refs} == set(secret["data"])
    assert secret["metadata"]["namespace"] == "observability"


def test_bucket_is_created_by_the_shown_commands(
    own_seaweedfs: SeaweedFS, aws: Callable[[S3Endpoint], AwsCli]
) -> None:
    client = aws(own_seaweedfs.endpoint())
    (line,) = [line for line in _LINES if line.startswith("aws s3api create-bucket")]
    answer = client.shell(line)
    assert json.loads(answer) == json.loads("\n".join(_output_after(line)))
    bucket = only(_JOBS["prometheus-backup"], "ConfigMap")["data"]["S3_BUCKET"]
    assert json.loads(answer) == {"Location": f"/{bucket}"}


def test_listing_ends_with_the_newest_backup(
    own_seaweedfs: SeaweedFS, aws: Callable[[S3Endpoint], AwsCli]
) -> None:
    bucket = own_seaweedfs.endpoint().new_bucket("health-tracker-prometheus-backups")
    for backup in ("backup-20250121-020000", "backup-20250122-020000"):
        bucket.put(f"prometheus-snapshots/{backup}/metadata.json", b"{}")
    (line,) = [line for line in _LINES if line.startswith("aws s3 ls")]
    assert aws(own_seaweedfs.endpoint()).shell(line).splitlines() == _output_after(line)


_EMPTY = {"name", "emptyDir"}


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """The folders of the page, next to the project: `first`, `replica-1`, and both of them."""
    own, replica, irsa, _ = (yaml.safe_load(block.text) for block in PAGE.blocks("yaml"))
    own["components"] += irsa["components"]
    both = {**replica, "resources": ["first", "replica-1"]}
    del both["components"]
    folders = {"first": own, "replica-1": replica, ".": both}
    for name, kustomization in folders.items():
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        project = f"{_up(folder)}/infrastructure"
        text = re.sub(r"(\.\./)+infrastructure", project, yaml.safe_dump(kustomization))
        (folder / "kustomization.yaml").write_text(text)
    return tmp_path


def test_own_overlay_changes_the_shown_values(own_folder: Path) -> None:
    manifests = render(own_folder / "first")
    settings = only(manifests, "ConfigMap", "prometheus-backup")["data"]
    assert settings["S3_BUCKET"] == "our-prometheus-backups"
    assert settings["S3_PREFIX"] == "prometheus-snapshots"
    assert settings["RETENTION_DAILY"] == "60"
    cronjob = only(manifests, "CronJob", "prometheus-backup")
    assert cronjob["spec"]["schedule"] == "0 2,14 * * *"
    spec = job_of(cronjob)["spec"]["template"]["spec"]
    retention = {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}
    assert retention["RETENTION_DAILY"] == "$(RETENTION_DAILY)"
    claims = [v for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims[0]["persistentVolumeClaim"] == {"claimName": "data-prometheus-0"}
    for account in (m for m in manifests if m["kind"] == "ServiceAccount"):
        assert "role-arn" in str(account["metadata"]["annotations"])


def test_registry_is_one_value_for_all_jobs_and_the_exporter(own_folder: Path) -> None:
    images = [c["image"] for pod in pods(render(own_folder)) for c in containers(pod)]
    ours = [image for image in images if "prometheus-backup" in image]
    assert len(ours) == 2 * 4
    assert set(ours) == {"registry.example.com/prometheus-backup:1.0.0"}


def test_namespace_is_one_value(own_folder: Path) -> None:
    file = own_folder / "first" / "kustomization.yaml"
    values = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**values, "namespace": "monitoring"}))
    manifests = render(own_folder)
    assert {m["metadata"]["namespace"] for m in manifests} == {"monitoring"}
    assert "observability" not in str(manifests)


def test_second_replica_of_an_own_folder_shares_nothing_that_must_differ(own_folder: Path) -> None:
    manifests = render(own_folder)
    names = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(set(names)) == len(names)
    for job in ("backup", "verify", "drill"):
        first, second = (
            job_of(only(manifests, "CronJob", f"prometheus-{job}{suffix}"))["spec"]["template"]
            for suffix in ("", "-1")
        )
        environment = {e["name"]: e.get("value") for e in second["spec"]["containers"][0]["env"]}
        assert environment["S3_PREFIX"] == "$(S3_PREFIX)-1"
        assert first["spec"]["serviceAccountName"] == second["spec"]["serviceAccountName"]
    volumes = [volume for pod in pods(manifests) for volume in pod["spec"]["volumes"]]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in volumes if v.keys() - _EMPTY]
    assert claims == ["data-prometheus-0", "data-prometheus-1"]
    starts = [m["spec"]["schedule"] for m in manifests if m["kind"] == "CronJob"]
    assert len(set(starts)) == len(starts)


def test_each_exporter_is_served_by_its_own_service(own_folder: Path) -> None:
    manifests = render(own_folder)
    exporters = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "Deployment"}
    assert exporters.keys() == {"prometheus-backup-metrics", "prometheus-backup-metrics-1"}
    monitor = only(render(PROMETHEUS / "monitoring"), "ServiceMonitor")["spec"]["selector"]
    for name in exporters:
        service = only(manifests, "Service", name)
        policy = only(manifests, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]
        for selector in (service["spec"]["selector"], policy):
            labels = {n: e["template"]["metadata"]["labels"] for n, e in exporters.items()}
            assert [n for n in labels if selector.items() <= labels[n].items()] == [name]
        assert monitor["matchLabels"].items() <= service["metadata"]["labels"].items()
    (container,) = exporters["prometheus-backup-metrics-1"]["template"]["spec"]["containers"]
    variables = {e["name"]: e.get("value") for e in container["env"]}
    assert variables["S3_PREFIX"] == "$(S3_PREFIX)-1"
    assert variables["METRICS_LABELS"] == "namespace=$(POD_NAMESPACE),cronjob=prometheus-backup-1"


def test_names_applied_again_above_both_replicas_change_only_the_first(own_folder: Path) -> None:
    """The component `names` selects the CronJob of the first replica, wherever it is added."""
    expected = render(own_folder)
    file = own_folder / "kustomization.yaml"
    component = f"{_up(own_folder)}/infrastructure/kubernetes/prometheus/components/names"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "components": [component]}))
    assert render(own_folder) == expected


def _up(start: Path) -> str:
    return "/".join([".."] * (len(start.parts) - 1)) + str(ROOT)


def test_mentioned_files_exist() -> None:
    named = [c for c in PAGE.inline_code() if re.match(r"(backup|overlays|components|drill)/", c)]
    assert len(named) > 8
    assert [name for name in named if not (PROMETHEUS / name).exists()] == []
