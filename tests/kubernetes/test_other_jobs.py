"""The restore, drill and verify jobs, which selectors of the backup must not match."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from prometheus_backup.cli.commands import commands
from prometheus_backup.settings import SETTINGS
from tests.support.kustomize import (
    PROMETHEUS,
    Manifest,
    containers,
    job_of,
    only,
    pods,
    render,
    with_components,
)

OTHER_JOBS = {"restore": "Job", "drill": "CronJob", "verify": "CronJob"}


@pytest.mark.parametrize("name", OTHER_JOBS)
def test_selectors_of_the_backup_do_not_match_them(name: str) -> None:
    manifests = render(PROMETHEUS / name)
    own = f"prometheus-{name}"
    assert {m["metadata"]["name"] for m in manifests} == {own}
    job = job_of(only(manifests, OTHER_JOBS[name]))
    for labelled in (job, job["spec"]["template"]):
        assert labelled["metadata"]["labels"] == {"app": own}
    policy = only(manifests, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == {"app": own}
    assert not own.startswith(
        "prometheus-backup"
    )  # also not by alerts with job_name=~"prometheus-backup.*"


@pytest.mark.parametrize("name", ["backup", *OTHER_JOBS])
def test_program_accepts_commands_and_settings(name: str) -> None:
    manifests = render(PROMETHEUS / name)
    for container in _own_containers(manifests):
        command, *arguments = container["args"]
        commands.commands[command].make_context(command, list(arguments))
        known = {s.env for s in SETTINGS.values()} | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        assert {entry["name"] for entry in container["env"]} <= known


def test_unknown_option_is_noticed() -> None:
    with pytest.raises(click.UsageError):
        commands.commands["verify"].make_context("verify", ["--al"])


@pytest.mark.parametrize("name", ["backup", *OTHER_JOBS])
def test_referenced_config_maps_and_secrets_exist(name: str) -> None:
    backup = render(PROMETHEUS / "backup")
    for container in _own_containers(render(PROMETHEUS / name)):
        for source in container["envFrom"]:
            assert only(backup, "ConfigMap", source["configMapRef"]["name"])
        secrets = [e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e]
        assert {s["name"] for s in secrets} == {"prometheus-backup-s3-credentials"}


def test_only_backup_and_restore_mount_the_volume_of_prometheus() -> None:
    claims = {
        name: [v for pod in pods(render(PROMETHEUS / name)) for v in _claims(pod)]
        for name in ("backup", *OTHER_JOBS)
    }
    claim = "prometheus-storage-prometheus-0"
    assert claims == {"backup": [claim], "restore": [claim], "drill": [], "verify": []}


def test_restore_target_is_set_in_one_place() -> None:
    target = yaml.safe_load((PROMETHEUS / "restore" / "target.yaml").read_text())["data"]
    manifests = render(PROMETHEUS / "restore")
    (pod,) = pods(manifests)
    (container,) = pod["spec"]["containers"]
    assert container["args"] == ["restore", target["backup"], "/prometheus", "--merge"]
    assert container["env"][0] == {"name": "PROMETHEUS_URL", "value": target["url"]}
    assert container["volumeMounts"][0]["subPath"] == target["subPath"]
    assert _claims(pod) == [target["claim"]]
    user, group = (pod["spec"]["securityContext"][who] for who in ("runAsUser", "runAsGroup"))
    assert (str(user), str(group)) == (target["uid"], target["gid"])
    # Only preferred: a stopped Prometheus runs on no node.
    (term,) = pod["spec"]["affinity"]["podAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    labels = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert list(labels.values()) == [target["pod"]]


def test_target_is_the_source_by_default() -> None:
    source = yaml.safe_load((PROMETHEUS / "backup" / "prometheus.yaml").read_text())["data"]
    target = yaml.safe_load((PROMETHEUS / "restore" / "target.yaml").read_text())["data"]
    assert source.items() - target.items() == {("labels", "replica=prometheus-0")}
    assert target.keys() - source.keys() == {"backup"}


@pytest.mark.parametrize("name", ["backup", *OTHER_JOBS])
def test_irsa_adds_the_role_to_the_service_account(name: str, tmp_path: Path) -> None:
    account = only(with_components(tmp_path, PROMETHEUS / name, "irsa"), "ServiceAccount")
    role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    assert role.endswith(f":role/prometheus-{name}")
    assert account["automountServiceAccountToken"] is False


def test_ingress_component_uses_the_configured_names(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, PROMETHEUS / "backup", "prometheus-ingress", "names")
    policy = only(manifests, "NetworkPolicy", "prometheus-backup-to-prometheus")["spec"]
    assert list(policy["podSelector"]["matchLabels"].values()) == ["prometheus-0"]
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == [9090]


def test_drill_can_use_a_scratch_volume(tmp_path: Path) -> None:
    (pod,) = pods(with_components(tmp_path, PROMETHEUS / "drill", "scratch-volume"))
    (scratch,) = [v for v in pod["spec"]["volumes"] if v["name"] == "scratch"]
    assert scratch.keys() == {"name", "ephemeral"}
    assert pod["spec"]["securityContext"]["fsGroup"] == pod["spec"]["securityContext"]["runAsUser"]


def _own_containers(manifests: list[Manifest]) -> Iterator[Manifest]:
    for pod in pods(manifests):
        yield from (c for c in containers(pod) if "prometheus-backup:" in c["image"])


def _claims(pod: Manifest) -> list[str]:
    volumes = pod["spec"]["volumes"]
    return [
        v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v
    ]
