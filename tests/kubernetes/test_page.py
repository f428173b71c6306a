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
from tests.support.kustomize import PROMETHEUS, Manifest, job_of, only, pods, render
from tests.support.pages import DOCS, ROOT, Page

PAGE = Page(DOCS / "how-to" / "kubernetes.md")
_LINES = [line for block in PAGE.blocks("bash") for line in block.text.splitlines()]
_KUBECTL = [shlex.split(p) for line in _LINES for p in line.split(" | ") if p[:8] == "kubectl "]
_JOBS = {
    f"prometheus-{name}": render(PROMETHEUS / name)
    for name in ("backup", "verify", "drill", "restore")
}


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


@pytest.mark.parametrize("folders", [["backup"], ["verify", "drill"], ["restore"]])
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
    assert len(commands) > 12
    for words in commands:
        assert words[words.index("-n") + 1] == "observability"
        for name in re.findall(r"cronjob[ /](\S+)", " ".join(w for w in words if w != "-n")):
            if name != "observability":
                assert only(_JOBS[name], "CronJob", name)
        if "-l" in words:
            label = words[words.index("-l") + 1]
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


def test_own_overlay_changes_the_shown_values(tmp_path: Path) -> None:
    own, _, irsa, _ = (block.text for block in PAGE.blocks("yaml"))
    merged = yaml.safe_load(own)
    merged["components"] += yaml.safe_load(irsa)["components"]
    # Next to the project, as the page says
    text = yaml.safe_dump(merged).replace("../infrastructure", f"{_up(tmp_path)}/infrastructure")
    (tmp_path / "kustomization.yaml").write_text(text)
    manifests = render(tmp_path)
    settings = only(manifests, "ConfigMap")["data"]
    assert settings["S3_BUCKET"] == "our-prometheus-backups"
    assert settings["S3_PREFIX"] == "prometheus-snapshots"
    cronjob = only(manifests, "CronJob")
    assert cronjob["spec"]["schedule"] == "0 2,14 * * *"
    (pod,) = pods(manifests)
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "registry.example.com/prometheus-backup:1.0.0"
    retention = {e["name"]: e.get("value") for e in container["env"]}
    assert retention["RETENTION_DAILY"] == "60", "a value in `env` counts"
    assert retention["RETENTION_MONTHLY"] == "$(RETENTION_MONTHLY)"
    claims = [v for v in pod["spec"]["volumes"] if "persistentVolumeClaim" in v]
    assert claims[0]["persistentVolumeClaim"] == {"claimName": "data-prometheus-0"}
    assert "role-arn" in str(only(manifests, "ServiceAccount")["metadata"]["annotations"])


def test_second_replica_is_verified_and_drilled_separately(tmp_path: Path) -> None:
    text = PAGE.blocks("yaml")[1].text.replace(
        "../infrastructure", f"{_up(tmp_path)}/infrastructure"
    )
    (tmp_path / "kustomization.yaml").write_text(text)
    manifests = render(tmp_path)
    accounts = {m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount"}
    assert accounts == {"prometheus-verify-1", "prometheus-drill-1"}
    for pod in pods(manifests):
        (container,) = pod["spec"]["containers"]
        assert container["env"][-1] == {"name": "S3_PREFIX", "value": "prometheus-snapshots-1"}
        assert container["envFrom"] == [{"configMapRef": {"name": "prometheus-backup"}}]
        assert pod["spec"]["serviceAccountName"] in accounts


def _up(start: Path) -> str:
    return "/".join([".."] * (len(start.parts) - 1)) + str(ROOT)


def test_mentioned_files_exist() -> None:
    named = [
        c for c in PAGE.inline_code() if re.match(r"(backup|overlays|components|restore|drill)/", c)
    ]
    assert len(named) > 8
    assert [name for name in named if not (PROMETHEUS / name).exists()] == []
