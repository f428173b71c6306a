"""Turn the CronJob of the backup into a Job that runs another command. Pure: values in, values out.

The Job has the CronJob's pod: image, volume, settings, credentials, security. It has a name of its
own, and no owner: one that belonged to the CronJob would count as a backup, and would push the log
of a failed night out of the CronJob's history.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from prometheus_backup.errors import UsageError

Object = dict[str, Any]

_GIVE_JSON = "give what `kubectl get cronjob NAME -o json` prints"
_MALFORMED = (KeyError, TypeError, AttributeError, StopIteration)
"""What reading an object raises that the API server would have refused."""
_DATA_DIR = "/prometheus"
"""Default of PROMETHEUS_DATA_DIR."""
_NEED_DATA = frozenset({"check", "heal", "inspect", "restore"})
"""Commands that read or write the data directory; the others run on any node."""
_WITHOUT_PROMETHEUS = frozenset({"heal", "inspect", "restore"})
"""Commands that must also run when Prometheus is stopped: there is no pod to be placed next to."""
_CHANGE_DATA = frozenset({"heal", "restore"})
_START_PROMETHEUS = frozenset({"drill", "open"})
_LONG = frozenset({"drill", "heal", "restore", "verify"})
"""Commands that are tried again after a temporary failure, and whose log is kept for a week."""
_RETRIES = 2
_DAY = 24 * 60 * 60
_FINAL_EXITS = [1, 2, 3, 10, 11, 12, 14, 21, 22, 30, 31, 32, 33, 40, 41]
"""Exit codes that a retry would not change (docs/exit-codes.md)."""


@dataclass(frozen=True, slots=True)
class CronJobPod:
    """The pod of a CronJob, and the name of the container in it that runs this program."""

    cronjob: Mapping[str, Any]
    container: str

    @classmethod
    def of(cls, document: Any, *, container: str | None, commands: Sequence[str]) -> "CronJobPod":
        """Return the pod of a CronJob, as `kubectl get cronjob NAME -o json` prints it.

        Without a name, the container is the only one, or the only one that runs one of `commands`.
        Raises UsageError if it is not a CronJob, or the container is not known.
        """
        cronjob = _single(document)
        try:
            containers = _template(cronjob)["spec"]["containers"]
            names = [str(c["name"]) for c in containers]
            ours = [str(c["name"]) for c in containers if _words(c) & set(commands)]
        except _MALFORMED:
            raise _malformed() from None
        candidates = [n for n in names if n == container] if container else names
        candidates = ours if len(candidates) > 1 else candidates
        if len(candidates) != 1:
            wanted = f"container {container}" if container else "the container of this program"
            raise UsageError(
                f"cannot find {wanted} in CronJob {_name(cronjob)}: it has {', '.join(names)}",
                hint="name it with --container",
            )
        return cls(cronjob, candidates[0])

    @property
    def data_dir(self) -> str:
        """Return the path of Prometheus' data directory in the container."""
        own = _container(_template(self.cronjob)["spec"], self.container)
        try:
            given = [e.get("value") for e in _entries(own) if e["name"] == "PROMETHEUS_DATA_DIR"]
        except _MALFORMED:
            raise _malformed() from None
        return str(given[-1] if given and given[-1] else _DATA_DIR).rstrip("/")


def job(pod: CronJobPod, command: str, arguments: Sequence[str], *, dry_run: bool) -> Object:
    """Return the Job that runs a command of this program in the pod of a CronJob.

    A dry run is not tried again. Raises UsageError if the pod lacks what the command needs.
    """
    try:
        template = _adapted(pod, command, arguments)
    except _MALFORMED:
        raise _malformed() from None
    return _job(pod, command, template, dry_run=dry_run)


def _adapted(pod: CronJobPod, command: str, arguments: Sequence[str]) -> Object:
    """Return the pod template of the CronJob with another command."""
    template: Object = copy.deepcopy(dict(_template(pod.cronjob)))
    spec = template["spec"]
    own = _container(spec, pod.container)
    if command in _NEED_DATA and _mount(own, pod.data_dir) is None:
        raise UsageError(
            f"cannot make a Job for {command} from CronJob {_name(pod.cronjob)}: no volume is "
            f"mounted at {pod.data_dir}",
            hint="use the CronJob of the backup, whose pod mounts Prometheus' volume",
        )
    if command in _START_PROMETHEUS and not _has(own, "PROMETHEUS_BINARY"):
        raise UsageError(
            f"cannot make a Job for {command} from CronJob {_name(pod.cronjob)}: its pod has no "
            "Prometheus to start",
            hint="use the CronJob prometheus-drill",
        )
    _set_command(own, command, arguments)
    _place(spec, own, command, pod.data_dir)
    if command in _CHANGE_DATA:  # also to show a plan, which says whether it can be done
        _make_writable(spec, own, pod.data_dir)
    spec["restartPolicy"] = "Never"  # which a podFailurePolicy requires
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if v is not None}
    # The other labels stay, so that the network policies of the CronJob's pods apply to this one.
    metadata["labels"] = {**(metadata.get("labels") or {}), "command": command}
    template["metadata"] = metadata
    return template


def _job(pod: CronJobPod, command: str, template: Object, *, dry_run: bool) -> Object:
    namespace = (pod.cronjob.get("metadata") or {}).get("namespace")
    deadline = pod.cronjob["spec"]["jobTemplate"]["spec"].get("activeDeadlineSeconds")
    limited = bool(deadline) and command not in _CHANGE_DATA
    is_long = command in _LONG and not dry_run
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "generateName": f"prometheus-{command}-",
            **({"namespace": namespace} if namespace else {}),
            "labels": {"app": f"prometheus-{command}"},
        },
        "spec": {
            "backoffLimit": _RETRIES if is_long else 0,
            **({"activeDeadlineSeconds": deadline} if limited else {}),
            "ttlSecondsAfterFinished": 7 * _DAY if is_long else _DAY,
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": pod.container,
                            "operator": "In",
                            "values": _FINAL_EXITS,
                        },
                    },
                    # The pod was evicted: start it again without counting it as a failure.
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                ]
            },
            "template": template,
        },
    }


def _set_command(own: Object, command: str, arguments: Sequence[str]) -> None:
    """Set the arguments of the container; a command of this program in `command` is removed."""
    old = next(iter(own.get("args") or ()), None)
    if own.get("command"):
        own["command"] = [*takewhile(lambda word: word not in ("backup", old), own["command"])]
    # Kubernetes replaces `$(NAME)` in arguments, and reads `$$` as `$`.
    own["args"] = [word.replace("$", "$$") for word in (command, *arguments)]


def _place(spec: Object, own: Object, command: str, data_dir: str) -> None:
    """Adapt where the pod may run: with the volume of Prometheus on its node, else anywhere."""
    affinity = spec.get("affinity") or {}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    if command not in _NEED_DATA:
        _unmount(spec, own, data_dir)
        affinity.pop("podAffinity", None)
    elif command in _WITHOUT_PROMETHEUS and required in (affinity.get("podAffinity") or {}):
        pods = affinity["podAffinity"]
        preferred = [{"weight": 100, "podAffinityTerm": term} for term in pods.pop(required)]
        pods.setdefault("preferredDuringSchedulingIgnoredDuringExecution", []).extend(preferred)
    if not affinity:
        spec.pop("affinity", None)


def _unmount(spec: Object, own: Object, path: str) -> None:
    """Remove what is mounted at a path, and its volume if no other container mounts it."""
    mount = _mount(own, path)
    if mount is None:
        return
    own["volumeMounts"].remove(mount)
    containers = [*spec["containers"], *(spec.get("initContainers") or ())]
    used = {m["name"] for c in containers for m in c.get("volumeMounts") or ()}
    spec["volumes"] = [v for v in spec["volumes"] if v["name"] in used]


def _make_writable(spec: Object, own: Object, path: str) -> None:
    """Mount the volume for writing, also if backups only read it."""
    mount = _mount(own, path) or {}
    mount.pop("readOnly", None)
    mount.pop("recursiveReadOnly", None)
    for volume in spec["volumes"]:
        if volume["name"] == mount.get("name"):
            (volume.get("persistentVolumeClaim") or {}).pop("readOnly", None)


def _mount(container: Mapping[str, Any], path: str) -> Object | None:
    mounts = container.get("volumeMounts") or ()
    return next((m for m in mounts if str(m.get("mountPath")).rstrip("/") == path), None)


def _has(container: Mapping[str, Any], variable: str) -> bool:
    return any(e["name"] == variable for e in _entries(container))


def _entries(container: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return container.get("env") or ()


def _template(cronjob: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = cronjob["spec"]["jobTemplate"]["spec"]["template"]
    return found


def _container(spec: Mapping[str, Any], name: str) -> Object:
    found: Object = next(c for c in spec["containers"] if c["name"] == name)
    return found


def _words(container: Mapping[str, Any]) -> set[str]:
    return {*(container.get("command") or ()), *(container.get("args") or ())}


def _malformed() -> UsageError:
    return UsageError("cannot read the CronJob: its pod template is malformed", hint=_GIVE_JSON)


def _name(cronjob: Mapping[str, Any]) -> str:
    return str((cronjob.get("metadata") or {}).get("name") or "?")


def _single(document: Any) -> Mapping[str, Any]:
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if kind == "List":
        items = document.get("items") or []
        if len(items) != 1:
            raise UsageError(
                f"cannot choose a CronJob: standard input has {len(items)} objects",
                hint="name one: kubectl get cronjob NAME -o json",
            )
        return _single(items[0])
    if not isinstance(document, Mapping) or kind != "CronJob":
        what = f"has kind {kind!r}" if kind else "is no Kubernetes object"
        raise UsageError(f"cannot read the CronJob: standard input {what}", hint=_GIVE_JSON)
    return document
