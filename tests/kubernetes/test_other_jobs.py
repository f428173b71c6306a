"""The drill and verify jobs, which selectors of the backup must not match; the components."""

import re
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

OTHER_JOBS = ("drill", "verify")


@pytest.mark.parametrize("name", OTHER_JOBS)
def test_selectors_of_the_backup_do_not_match_them(name: str) -> None:
    manifests = render(PROMETHEUS / name)
    own = f"prometheus-{name}"
    assert {m["metadata"]["name"] for m in manifests} == {own}
    for manifest in manifests:
        assert manifest["metadata"]["labels"] == {"app": own}
    job = job_of(only(manifests, "CronJob"))
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


def test_only_the_backup_mounts_the_volume_of_prometheus() -> None:
    claims = {
        name: [v for pod in pods(render(PROMETHEUS / name)) for v in _claims(pod)]
        for name in ("backup", *OTHER_JOBS)
    }
    claim = "prometheus-storage-prometheus-0"
    assert claims == {"backup": [claim], "drill": [], "verify": []}


@pytest.mark.parametrize("name", ["backup", *OTHER_JOBS])
def test_irsa_adds_the_role_to_the_service_account(name: str, tmp_path: Path) -> None:
    account = only(with_components(tmp_path, PROMETHEUS / name, "irsa"), "ServiceAccount")
    role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    assert role.endswith(f":role/prometheus-{name}")
    assert account["automountServiceAccountToken"] is False


def test_account_of_the_roles_is_set_in_one_place() -> None:
    component = PROMETHEUS / "components" / "irsa"
    account = yaml.safe_load((component / "account.yaml").read_text())["data"]["account"]
    assert account == "123456789012"
    text = (component / "kustomization.yaml").read_text()
    assert text.count("fieldPath: data.account") == 1
    patched, replaced = (
        re.findall(rf"^ *- {key}: {{kind: ServiceAccount, name: (\S+)}}", text, re.MULTILINE)
        for key in ("target", "select")
    )
    assert patched == replaced


@pytest.mark.parametrize(
    "order", [("prometheus-ingress", "names"), ("names", "prometheus-ingress")]
)
def test_ingress_component_uses_the_configured_names_in_any_order(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    generator = {
        "name": "prometheus",
        "namespace": "observability",
        "behavior": "merge",
        "options": {"disableNameSuffixHash": True},
        "literals": ["pod=other-7"],
    }
    manifests = with_components(
        tmp_path, PROMETHEUS / "backup", *order, configMapGenerator=[generator]
    )
    policy = only(manifests, "NetworkPolicy", "prometheus-backup-to-prometheus")
    assert policy["metadata"]["labels"] == {"app": "prometheus-backup"}
    assert list(policy["spec"]["podSelector"]["matchLabels"].values()) == ["other-7"]
    (rule,) = policy["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [9090]
    (pod,) = pods(manifests)
    (client,) = rule["from"]
    selected = client["podSelector"]["matchLabels"]
    assert selected.items() <= pod["metadata"]["labels"].items()


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
