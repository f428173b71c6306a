"""`prometheus-backup job`: its Jobs fit Kubernetes, and do what the runbook says."""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.cli.commands import commands
from tests.kubernetes.test_manifests import NEWEST, OLDEST
from tests.support.cluster import Cluster
from tests.support.contents import owners
from tests.support.kustomize import PROMETHEUS, Manifest, only, render
from tests.support.pages import DOCS, Page
from tests.support.pod_security import violations
from tests.support.stored_backups import run_here

_MINUTE = timedelta(minutes=1)
_BLOCKS = [
    block.text
    for page in ("disaster-recovery.md", "kubernetes.md")
    for block in Page(DOCS / "how-to" / page).blocks("bash")
    if "prometheus-backup job" in block.text
]
_COMMANDS = [
    ["restore", "latest"],
    ["restore", "latest", "--dry-run"],
    ["restore", "--history", "--dry-run"],
    ["heal", "--apply"],
    ["heal"],
    ["verify", "latest", "--level", "tsdb"],
    ["check"],
    ["list"],
    ["show", "backup-20250122-020000"],
    ["prune", "--dry-run"],
    ["inspect"],
    ["timeline", "--from", "-7d"],
    ["estimate"],
]


def _cronjob(folder: str = "backup") -> Manifest:
    return only(render(PROMETHEUS / folder), "CronJob")


def _job(*arguments: str, cronjob: Manifest | None = None) -> Manifest:
    done = run_here("job", *arguments, stdin=json.dumps(cronjob or _cronjob()))
    assert done.returncode == 0, done.stderr
    made: Manifest = json.loads(done.stdout)
    return made


def _spec(job: Manifest) -> Manifest:
    spec: Manifest = job["spec"]["template"]["spec"]
    return spec


def _arguments(job: Manifest) -> list[str]:
    (container,) = _spec(job)["containers"]
    arguments: list[str] = container["args"]
    return arguments


def _stored(cronjob: Manifest) -> Manifest:
    """Return a CronJob as the API server returns it, with more fields than were applied."""
    stored: Manifest = json.loads(json.dumps(cronjob))
    stored["metadata"] |= {"uid": "1", "resourceVersion": "2", "annotations": {"a": "b"}}
    stored["status"] = {"lastScheduleTime": "2025-01-22T02:00:00Z"}
    template = stored["spec"]["jobTemplate"]
    template["metadata"]["creationTimestamp"] = None
    template["spec"]["template"]["metadata"]["creationTimestamp"] = None
    template["spec"]["template"]["spec"] |= {"dnsPolicy": "ClusterFirst"}
    return stored


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_jobs_match_the_schema(version: str) -> None:
    for arguments in _COMMANDS:
        kubernetes_validate.validate(_job(*arguments), version, strict=True)
    for command in ("drill", "open"):
        job = _job(command, "latest", cronjob=_cronjob("drill"))
        kubernetes_validate.validate(job, version, strict=True)


@pytest.mark.parametrize("arguments", _COMMANDS, ids=" ".join)
def test_job_is_new_and_does_not_count_as_a_backup(arguments: list[str]) -> None:
    job = _job(*arguments, cronjob=_stored(_cronjob()))
    metadata = job["metadata"]
    assert metadata.keys() == {"generateName", "namespace", "labels"}, "no owner, no fixed name"
    # Alerts and people look for Jobs called prometheus-backup.*, and for the label.
    assert metadata["generateName"] == f"prometheus-{arguments[0]}-"
    assert metadata["labels"] == {"app": f"prometheus-{arguments[0]}"}
    assert metadata["namespace"] == "observability"
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    assert violations(_spec(job)) == []
    assert None not in job["spec"]["template"]["metadata"].values()


def test_pod_is_that_of_the_cronjob() -> None:
    cronjob = _cronjob()
    own = cronjob["spec"]["jobTemplate"]["spec"]["template"]
    for arguments in (["check"], ["restore", "latest"], ["heal"]):
        template = _job(*arguments, cronjob=cronjob)["spec"]["template"]
        labels = template["metadata"]["labels"]
        assert labels == {**own["metadata"]["labels"], "command": arguments[0]}
        policy = only(render(PROMETHEUS / "backup"), "NetworkPolicy")["spec"]["podSelector"]
        assert policy["matchLabels"].items() <= labels.items(), "it may connect to the same servers"
        for changed in (template["spec"], own["spec"]):
            changed.pop("affinity", None)
            changed["containers"][0].pop("args", None)
        assert template["spec"] == own["spec"]


def test_data_directory_is_added_where_the_command_needs_it() -> None:
    assert _arguments(_job("restore", "latest", "--dry-run")) == [
        *("restore", "latest", "--dry-run", "/prometheus", "--merge")
    ]
    assert _arguments(_job("restore", "latest", "/prometheus/other")) == [
        *("restore", "latest", "/prometheus/other")
    ]
    assert _arguments(_job("restore", "--history", "--from", "-30d")) == [
        *("restore", "--history", "--from", "-30d", "/prometheus", "--merge")
    ]
    assert _arguments(_job("restore", "--history", "/prometheus/other")) == [
        *("restore", "--history", "/prometheus/other")
    ]
    assert _arguments(_job("heal", "--apply")) == ["heal", "--apply", "/prometheus"]
    assert _arguments(_job("list")) == ["list"]
    cronjob = _cronjob()
    container = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "PROMETHEUS_DATA_DIR", "value": "/data"})
    container["volumeMounts"][0]["mountPath"] = "/data/"
    assert _arguments(_job("heal", cronjob=cronjob)) == ["heal", "/data"]


def test_restore_and_heal_run_although_prometheus_is_stopped() -> None:
    """There is no pod then; it is required only where Prometheus must run anyway."""
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    for arguments in (["restore", "latest"], ["heal"], ["inspect"]):
        affinity = _spec(_job(*arguments))["affinity"]["podAffinity"]
        (term,) = affinity.pop("preferredDuringSchedulingIgnoredDuringExecution")
        assert affinity == {}
        labels = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
        assert labels == {"statefulset.kubernetes.io/pod-name": "prometheus-0"}
    assert required in _spec(_job("check"))["affinity"]["podAffinity"]


def test_commands_without_the_data_run_on_any_node() -> None:
    for arguments in (["list"], ["verify"], ["prune", "--dry-run"]):
        spec = _spec(_job(*arguments))
        assert "affinity" not in spec
        assert [volume["name"] for volume in spec["volumes"]] == ["tmp"]
        assert [m["mountPath"] for m in spec["containers"][0]["volumeMounts"]] == ["/tmp"]  # noqa: S108


def test_only_what_may_succeed_later_is_tried_again() -> None:
    tries = {" ".join(a): _job(*a)["spec"]["backoffLimit"] for a in _COMMANDS}
    again = {"restore latest", "heal --apply", "verify latest --level tsdb"}
    assert {line for line, limit in tries.items() if limit} == again
    rules = _job("restore", "latest")["spec"]["podFailurePolicy"]["rules"]
    assert not {13, 20, 137, 143} & {*rules[0]["onExitCodes"]["values"]}
    assert "activeDeadlineSeconds" not in _job("restore", "latest")["spec"]


def test_arguments_reach_the_program_as_they_are() -> None:
    """Kubernetes expands `$(NAME)` in arguments."""
    odd = "$(S3_BUCKET) 'x' \"y\" $$ \\ é"
    assert _arguments(_job("show", odd)) == ["show", odd.replace("$", "$$")]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["restore"], "missing argument 'BACKUP'"),
        (["restore", "latest", "--froom", "x"], "no such option '--froom'"),
        (["restore", "latest", "--wait", "soon"], "cannot use --wait"),
        (["heal", "/prometheus", "x"], "unexpected extra argument"),
        (["backup"], "cannot make a Job for backup"),
        (["nothing"], "there is no command 'nothing'"),
        (["drill", "latest"], "its pod has no Prometheus to start"),
        (["open", "latest"], "its pod has no Prometheus to start"),
    ],
    ids=str,
)
def test_what_the_pod_would_refuse_makes_no_job(arguments: list[str], cause: str) -> None:
    done = run_here("job", *arguments, stdin=json.dumps(_cronjob()))
    assert (done.returncode, done.stdout) == (2, "")
    assert cause in done.stderr


@pytest.mark.parametrize("folder", ["verify", "drill"])
def test_restore_needs_a_pod_with_the_volume(folder: str) -> None:
    done = run_here("job", "restore", "latest", stdin=json.dumps(_cronjob(folder)))
    assert done.returncode == 2
    assert "no volume is mounted at /prometheus" in done.stderr


def _with_containers(containers: Any) -> str:
    pod = {"spec": {"containers": containers}}
    return json.dumps({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": pod}}}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Error from server (NotFound)",
        "[]",
        "null",
        '{"kind": "Pod"}',
        '{"kind": "List", "items": []}',
        '{"kind": "List", "items": [1]}',
        '{"kind": "CronJob"}',
        _with_containers(3),
        _with_containers([]),
        _with_containers([{"name": "a", "args": 3}]),
        _with_containers([{"name": "a", "env": 1}]),
        _with_containers([{"name": "a", "volumeMounts": [2]}]),
        "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_other_input_is_an_error_with_a_hint(text: str) -> None:
    done = run_here("job", "restore", "latest", stdin=text)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot" in done.stderr
    assert "hint=" in done.stderr
    assert "Traceback" not in done.stderr


def test_container_of_this_program_is_found_among_others() -> None:
    cronjob = _cronjob()
    spec = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    spec["containers"].insert(0, {"name": "proxy", "image": "example.com/proxy:1"})
    proxy, own = _spec(_job("list", cronjob=cronjob))["containers"]
    assert ("args" in proxy, own["args"]) == (False, ["list"])
    spec["containers"][1]["args"] = []
    done = run_here("job", "list", stdin=json.dumps(cronjob))
    assert done.returncode == 2
    assert "name it with --container" in done.stderr
    named = _job("--container", "prometheus-backup", "list", cronjob=cronjob)
    assert _spec(named)["containers"][1]["args"] == ["list"]


def test_every_command_can_be_a_job_or_says_why_not() -> None:
    for name in commands.commands:
        done = run_here("job", name, stdin=json.dumps(_cronjob()))
        assert "Traceback" not in done.stderr
        assert done.returncode == 0 or "cannot" in done.stderr


_KUBECTL = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
words = sys.argv[1:]
if words[:1] == ["get"]:
    print((here / "cronjob.json").read_text())
elif words[:1] == ["create"]:
    job = json.load(sys.stdin)
    with (here / "created.jsonl").open("a") as file:
        file.write(json.dumps(job) + "\\n")
    print("job.batch/" + job["metadata"]["generateName"] + "x7k2p")
elif words[:1] == ["logs"]:
    asked = here / "asked"
    times = len(asked.read_text()) if asked.exists() else 0
    asked.write_text("." * (times + 1))
    if times == 0:
        sys.exit(0)  # a pod without a node: nothing, and success
    if times == 1:
        sys.exit("Error from server (BadRequest): container is waiting to start: ContainerCreating")
    print("the log")
"""


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Run shell code with a kubectl that answers as a cluster whose pod is slow to start."""
    (tmp_path / "cronjob.json").write_text(json.dumps(_stored(_cronjob())))
    for name, text in {
        "kubectl": _KUBECTL.format(python=sys.executable),
        "sleep": "#!/bin/sh\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(script: str) -> tuple[subprocess.CompletedProcess[str], list[Manifest]]:
        done = subprocess.run(
            ["bash", "-c", script],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        created = tmp_path / "created.jsonl"
        lines = created.read_text().splitlines() if created.exists() else []
        return done, [json.loads(line) for line in lines]

    return run


@pytest.mark.parametrize("block", _BLOCKS)
def test_block_of_the_runbook_creates_one_job_and_waits_for_its_log(block: str, shell: Any) -> None:
    done, created = shell(block)
    assert done.stdout == "the log\n", done.stderr
    assert "ContainerCreating" in done.stderr, "it says why it waits"
    (job,) = created
    kubernetes_validate.validate(job, NEWEST, strict=True)
    assert f"prometheus-backup job {_arguments(job)[0]}" in block


@pytest.mark.parametrize("block", _BLOCKS[:1])
def test_block_of_the_runbook_ends_if_there_is_no_cronjob(
    block: str, shell: Any, tmp_path: Path
) -> None:
    (tmp_path / "cronjob.json").unlink()
    done, created = shell(block)
    assert created == []
    assert done.returncode != 0
    assert not (tmp_path / "asked").exists()


def test_runbook_has_a_plan_and_an_execution_of_restore_and_heal(shell: Any) -> None:
    done, _ = shell("true")
    assert done.returncode == 0
    lines = [block.partition("prometheus-backup job ")[2].partition(" |")[0] for block in _BLOCKS]
    assert lines[:4] == ["restore latest --dry-run", "restore latest", "heal", "heal --apply"]
    for block in _BLOCKS:
        assert block.count("prometheus-backup job") == 1, "a plan and its execution stand apart"


def test_jobs_of_all_other_commands_run(cluster: Cluster, source: PrometheusServer) -> None:
    source.fill_head(metric="up")
    (backup,) = cluster.run(_cronjob()["spec"]["jobTemplate"]["spec"]["template"])
    assert backup.returncode == 0, backup.stderr
    done = {}
    for arguments in _COMMANDS:
        command, *rest = ["latest" if a.startswith("backup-") else a for a in arguments]
        if command not in ("restore", "heal"):
            (done[command],) = cluster.run(_job(command, *rest)["spec"]["template"])
    for arguments in (["drill", "latest"], ["open", "latest", "--dry-run"]):
        job = _job(*arguments, cronjob=_cronjob("drill"))
        done[arguments[0]] = cluster.run(job["spec"]["template"])[-1]
    failed = {c: d.stdout + d.stderr for c, d in done.items() if d.returncode != 0}
    assert failed == {}
    assert len(done) == 10


def _start(meta: Path) -> int:
    start: int = json.loads(meta.read_bytes())["minTime"]
    return start


def test_jobs_restore_a_running_prometheus_and_heal_a_stopped_one(
    cluster: Cluster, source: PrometheusServer, bucket: S3Bucket
) -> None:
    (backup,) = cluster.run(_cronjob()["spec"]["jobTemplate"]["spec"]["template"])
    assert backup.returncode == 0, backup.stderr
    (key,) = [k for k in bucket.keys("prometheus-snapshots/") if k.endswith("/metadata.json")]
    manifest = json.loads(bucket.get(key))
    backup_id = manifest["backup_id"]
    # A minute before the end of each block, without the self-scraped metrics of the source
    times = [datetime.fromisoformat(b["max_time"]) - _MINUTE for b in manifest["blocks"]]
    expected = [source.query('{__name__=~".+", job=""}', at) for at in times]
    assert all(expected)
    blocks = [source.data_dir / block["ulid"] for block in manifest["blocks"]]
    source.kill()
    for path in source.data_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    source.start()
    source.wait_until_scraped()

    (planned,) = cluster.run(_job("restore", backup_id, "--dry-run")["spec"]["template"])
    nothing = [p.name for p in blocks if p.exists()]
    (restored,) = cluster.run(_job("restore", backup_id)["spec"]["template"])
    answers = [source.query('{__name__=~".+", job=""}', at) for at in times]
    (listed,) = cluster.run(_job("list")["spec"]["template"])
    source.kill()
    # Not the head block of the snapshot: its samples would hide newer ones. The others may be
    # compacted by now.
    oldest = min(source.data_dir.glob("*/meta.json"), key=_start)
    (oldest.parent / "index").write_bytes(b"damaged")
    # In a cluster, a stopped pod has no address. Here, its address accepts connections.
    stopped = ["--prometheus-url", "http://localhost:1"]
    (found,) = cluster.run(_job("heal", *stopped)["spec"]["template"])
    (healed,) = cluster.run(_job("heal", "--apply", *stopped)["spec"]["template"])

    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert nothing == []
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert "Prometheus has loaded" in restored.stdout
    assert answers == expected
    assert backup_id in listed.stdout
    assert found.returncode == 41, found.stdout + found.stderr
    assert healed.returncode == 0, healed.stdout + healed.stderr
    assert "healed 1 of 1" in healed.stdout
    assert owners(source.data_dir) == {65534}
