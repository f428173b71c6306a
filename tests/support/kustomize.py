"""Renders the Kubernetes manifests like `kubectl apply -k`."""

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from devtools.fetch_container_tools import find_kubectl
from tests.support.pages import ROOT

PROMETHEUS = ROOT / "infrastructure" / "kubernetes" / "prometheus"
Manifest = dict[str, Any]


def roots() -> list[Path]:
    """Return all folders that work with `kubectl apply -k`."""
    files = sorted((ROOT / "infrastructure" / "kubernetes").rglob("kustomization.yaml"))
    return [f.parent for f in files if yaml.safe_load(f.read_text())["kind"] == "Kustomization"]


@functools.cache
def _rendered(folder: Path) -> str:
    kubectl = find_kubectl()
    done = subprocess.run(
        [str(kubectl.path), "kustomize", str(folder)],
        env={**os.environ, **kubectl.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"kubectl kustomize {folder}:\n{done.stderr}"
    assert done.stderr == "", f"kubectl kustomize {folder} warns:\n{done.stderr}"
    return done.stdout


def render(folder: Path) -> list[Manifest]:
    """Return the output of `kubectl kustomize FOLDER`; a warning is a failure."""
    return [document for document in yaml.safe_load_all(_rendered(folder)) if document]


def with_components(
    tmp_path: Path, folder: Path, *components: str, **fields: Any
) -> list[Manifest]:
    """Render a kustomization of a folder with components, as a user would write it.

    `fields` are more fields of the kustomization.
    """
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [_from(tmp_path, folder)],
                "components": [_from(tmp_path, PROMETHEUS / "components" / c) for c in components],
                **fields,
            }
        )
    )
    return render(tmp_path)


def _from(start: Path, folder: Path) -> str:
    return "/".join([".."] * (len(start.parts) - 1)) + str(folder)


def only(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Return the only manifest of this kind and name."""
    (found,) = [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]
    return found


def job_of(manifest: Manifest) -> Manifest:
    """Return the Job of a CronJob, or the Job itself."""
    return manifest["spec"]["jobTemplate"] if manifest["kind"] == "CronJob" else manifest


def pods(manifests: list[Manifest]) -> list[Manifest]:
    """Return the pod templates in these manifests."""
    workloads = ("CronJob", "Job", "Deployment", "StatefulSet", "DaemonSet")
    return [job_of(m)["spec"]["template"] for m in manifests if m["kind"] in workloads]


def containers(pod: Manifest) -> list[Manifest]:
    """Return all containers of a pod, init containers first."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
