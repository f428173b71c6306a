"""Runs the containers of a pod like a Kubernetes node, as the manifest says.

It applies the image's root file system, and the pod's command, environment, user, mounts, read-only
root and Services. It does not apply CPU and memory limits, seccomp, or scheduling.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.kustomize import Manifest
from tests.support.pod_network import PodNetwork

POD_NAME = "prometheus-0"
"""The name of every pod. Only those of a StatefulSet use it."""
NAMESPACE = "observability"

_DEVICES = ("full", "null", "random", "urandom", "zero")
"""Some of the default devices of every container (OCI runtime-spec, config-linux.md)."""


@dataclass(frozen=True)
class Image:
    """An unpacked image: its layers, top layer first, and its configuration.

    https://github.com/opencontainers/image-spec/blob/main/config.md
    """

    layers: tuple[Path, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Cluster:
    """One namespace: the objects and Services that its pods use.

    `folder` holds what is mounted into containers; every user must have access to it.
    """

    folder: Path
    images: Mapping[str, Image]
    network: PodNetwork
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    claims: dict[str, Path] = field(default_factory=dict)
    empty_dirs: dict[str, Path] = field(default_factory=dict)
    """Volumes of the pod that exist already, because other containers use them."""

    def add(self, manifests: list[Manifest]) -> None:
        """Add the ConfigMaps, as `kubectl apply` does."""
        for manifest in manifests:
            if manifest["kind"] == "ConfigMap":
                self.config_maps[manifest["metadata"]["name"]] = dict(manifest["data"])

    def run(self, pod: Manifest) -> list[subprocess.CompletedProcess[str]]:
        """Run the containers of a pod one after the other; stop after one that fails."""
        spec = pod["spec"]
        empty_dirs = self.folder / "emptyDirs"
        shutil.rmtree(empty_dirs, ignore_errors=True)
        done = []
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            done.append(self._run(container, spec))
            if done[-1].returncode != 0:
                break
        return done

    def _run(self, container: Manifest, spec: Manifest) -> subprocess.CompletedProcess[str]:
        process = self.start(container, spec)
        try:
            output, log = process.communicate(timeout=120)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, output, log)

    def start(self, container: Manifest, spec: Manifest) -> subprocess.Popen[str]:
        """Start one container of a pod. The caller must stop it."""
        image = self.images[container["image"]]
        security = {**spec["securityContext"], **container["securityContext"]}
        program = ["setpriv", "--no-new-privs"] if not security["allowPrivilegeEscalation"] else []
        chroot = str(shutil.which("chroot"))
        root = self._new_folder("root")
        user = f"--userspec={security['runAsUser']}:{security['runAsGroup']}"
        environment = self._environment(container, image)
        script = [
            *self._mounts(container, spec, image, root),
            shlex.join(
                [
                    "exec",
                    *program,
                    chroot,
                    user,
                    "--groups=",
                    str(root),
                    *(_expanded(word, environment) for word in _command(container, image)),
                ]
            ),
        ]
        enter = ["nsenter", f"--net={self.network.namespace}", "unshare", "--mount"]
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *enter, "/bin/sh", "-euc", "\n".join(script)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _environment(self, container: Manifest, image: Image) -> dict[str, str]:
        environment = dict(entry.split("=", 1) for entry in image.config["Env"])
        for source in container.get("envFrom", []):
            prefix = source.get("prefix", "")
            data = self.config_maps[source["configMapRef"]["name"]]
            environment |= {f"{prefix}{name}": value for name, value in data.items()}
        for entry in container.get("env", []):
            if "value" in entry:
                environment[entry["name"]] = _expanded(entry["value"], environment)
                continue
            if "fieldRef" in entry["valueFrom"]:
                path = entry["valueFrom"]["fieldRef"]["fieldPath"]
                fields = {"metadata.name": POD_NAME, "metadata.namespace": NAMESPACE}
                environment[entry["name"]] = fields[path]
                continue
            ref = entry["valueFrom"]["secretKeyRef"]
            secret = self.secrets.get(ref["name"], {})
            if ref["key"] in secret or not ref.get("optional"):
                environment[entry["name"]] = secret[ref["key"]]
        return environment

    def _mounts(self, container: Manifest, spec: Manifest, image: Image, root: Path) -> list[str]:
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        binds = [(self._file("hosts", self.network.hosts), "/etc/hosts", "rw")]
        binds.append((self._file("resolv.conf", ""), "/etc/resolv.conf", "rw"))
        for mount in container["volumeMounts"]:
            source = self._volume(volumes[mount["name"]]) / mount.get("subPath", "")
            claim = volumes[mount["name"]].get("persistentVolumeClaim", {})
            mode = "ro" if mount.get("readOnly") or claim.get("readOnly") else "rw"
            binds.append((source, mount["mountPath"], mode))
        over = self._new_folder("over")  # a writable layer over the image's root
        below = ":".join(map(str, image.layers))
        layers = f"lowerdir={below},upperdir={over}/upper,workdir={over}/work"
        commands = [
            ["mount", "-t", "tmpfs", "tmpfs", str(over)],
            ["mkdir", f"{over}/upper", f"{over}/work"],
            ["mount", "-t", "overlay", "overlay", "-o", layers, str(root)],
            ["mount", "--rbind", "/proc", f"{root}/proc"],
            ["mount", "-t", "tmpfs", "tmpfs", f"{root}/dev"],
        ]
        for device in _DEVICES:
            commands.append(["touch", f"{root}/dev/{device}"])
            commands.append(["mount", "--bind", f"/dev/{device}", f"{root}/dev/{device}"])
        for source, path, mode in binds:
            target = f"{root}{path}"
            make = ["mkdir", "-p", target] if source.is_dir() else ["touch", target]
            commands += [make, ["mount", "--bind", str(source), target]]
            commands.append(["mount", "-o", f"remount,bind,{mode}", target])
        if container["securityContext"].get("readOnlyRootFilesystem"):
            commands.append(["mount", "-o", "remount,ro", str(root)])
        return [shlex.join(command) for command in commands]

    def _new_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _volume(self, volume: Manifest) -> Path:
        if "persistentVolumeClaim" in volume:
            return self.claims[volume["persistentVolumeClaim"]["claimName"]]
        assert "emptyDir" in volume, f"unsupported kind of volume: {volume}"
        if volume["name"] in self.empty_dirs:
            return self.empty_dirs[volume["name"]]
        folder = self._new_folder(f"emptyDirs/{volume['name']}")
        folder.chmod(0o777)  # as the kubelet makes them
        return folder

    def _file(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.write_text(text)
        return file


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the values of earlier variables, and `$$` by `$`; unknown names stay."""
    return re.sub(
        r"\$\$|\$\((\w+)\)", lambda m: "$" if not m[1] else environment.get(m[1], m[0]), text
    )


def _command(container: Manifest, image: Image) -> list[str]:
    """Return the command line: `command` replaces ENTRYPOINT, `args` replaces CMD."""
    entry_point = container.get("command") or image.config.get("Entrypoint") or []
    if "command" in container and "args" not in container:
        return [*entry_point]
    return [*entry_point, *container.get("args", image.config.get("Cmd") or [])]
