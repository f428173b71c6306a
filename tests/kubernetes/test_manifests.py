"""Every folder of manifests builds, matches Kubernetes' schemas, and needs no privileges."""

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.support.kustomize import PROMETHEUS, containers, only, pods, render, roots
from tests.support.pages import ROOT
from tests.support.pod_security import violations

OLDEST, NEWEST = "1.29", "1.37"  # Kubernetes versions in the pinned validator

_ROOTS = [pytest.param(r, id=r.relative_to(ROOT).as_posix()) for r in roots()]


def test_backup_folder_is_checked() -> None:
    assert PROMETHEUS / "backup" in roots()


@pytest.mark.parametrize("folder", _ROOTS)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_manifests_match_the_schemas(folder: Path, version: str) -> None:
    manifests = render(folder)
    assert manifests
    for manifest in manifests:
        if (
            "monitoring.coreos.com" not in manifest["apiVersion"]
        ):  # custom resources of the operator
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", _ROOTS)
def test_pods_meet_the_restricted_profile(folder: Path) -> None:
    for pod in pods(render(folder)):
        assert violations(pod["spec"]) == []
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["enableServiceLinks"] is False
        assert "fsGroup" not in pod["spec"]["securityContext"]
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"].keys() == {"requests", "limits"}
            assert container["image"].rpartition(":")[2] not in ("", "latest")


@pytest.mark.parametrize("folder", _ROOTS)
def test_names_are_valid(folder: Path) -> None:
    for manifest in render(folder):
        assert manifest["kind"] != "Namespace", "delete -k must not remove it"
        assert manifest["metadata"]["namespace"] == "observability"
        assert (
            len(manifest["metadata"]["name"]) <= 52
        )  # the limit for a CronJob, whose jobs have longer names


_BROKEN: dict[str, Any] = {
    "runs as root": {"runAsUser": 0},
    "runAsNonRoot is not true": {"runAsNonRoot": False},
    "has no seccomp profile": {"seccompProfile": {"type": "Unconfined"}},
    "allowPrivilegeEscalation is not false": {"allowPrivilegeEscalation": True},
    "privileged": {"privileged": True},
    "does not drop ALL capabilities": {"capabilities": {}},
}


@pytest.mark.parametrize("violation", _BROKEN)
def test_violation_is_noticed(violation: str) -> None:
    (pod,) = pods(render(PROMETHEUS / "backup"))
    broken = copy.deepcopy(pod["spec"])
    broken["containers"][0]["securityContext"] |= _BROKEN[violation]
    assert any(violation in found for found in violations(broken))
    broken = copy.deepcopy(pod["spec"])
    broken["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    assert violations(broken) == ["volume host is a hostPath"]


def test_unknown_field_is_noticed() -> None:
    manifest = copy.deepcopy(only(render(PROMETHEUS / "backup"), "CronJob"))
    manifest["spec"]["jobTemplate"]["spec"]["backofLimit"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)
