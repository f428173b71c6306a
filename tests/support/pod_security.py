"""Pod Security Standards, profile "restricted", for one pod.

Follows kubernetes/pod-security-admission (policy/check_*.go) and checks the same fields.
https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECCOMP = {"RuntimeDefault", "Localhost"}


def violations(spec: dict[str, Any]) -> list[str]:
    """Return what "restricted" refuses in this pod `spec`."""
    return [*_of_pod(spec), *(v for c in _all_containers(spec) for v in _of_container(c, spec))]


def _all_containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind, [])


def _of_pod(spec: dict[str, Any]) -> Iterator[str]:
    for shared in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(shared):
            yield shared
    for volume in spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    if spec.get("securityContext", {}).get("sysctls"):
        yield "sysctls"


def _of_container(container: dict[str, Any], spec: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    both = {**spec.get("securityContext", {}), **own}
    capabilities = own.get("capabilities", {})
    checks = {
        "privileged": own.get("privileged"),
        "procMount": own.get("procMount", "Default") != "Default",
        "hostPort": any(port.get("hostPort") for port in container.get("ports", [])),
        "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is not False,
        "does not drop ALL capabilities": "ALL" not in capabilities.get("drop", []),
        "adds capabilities": set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"},
        "runAsNonRoot is not true": both.get("runAsNonRoot") is not True,
        "runs as root": both.get("runAsUser") == 0,
        "has no seccomp profile": both.get("seccompProfile", {}).get("type") not in _SECCOMP,
        "seLinuxOptions": both.get("seLinuxOptions", {}).keys() - {"type", "level"},
        "windowsOptions": both.get("windowsOptions"),
    }
    yield from (f"{container['name']}: {problem}" for problem, found in checks.items() if found)
