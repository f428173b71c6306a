"""The policy scanner checkov finds no unintended problems in the manifests."""

import copy
import json
import os
import subprocess
from pathlib import Path

import yaml

from devtools.chart import CHART
from tests.support.helm import objects
from tests.support.kustomize import PROMETHEUS, containers, only, pods, render, roots
from tests.support.pages import ROOT

_CHECKOV = ROOT / ".tools" / "checkov" / "bin" / "checkov"
_SKIPPED_CHECKS = {
    "CKV_K8S_15": "image pull policy: tags are versions, and an image may be local to the node",
    "CKV_K8S_35": "secrets as files: AWS clients read these two from the environment",
    "CKV_K8S_40": "high uid: it must be Prometheus' user, which is 1000 with the operator",
    "CKV_K8S_43": "image digest: it differs for everybody who builds the image",
}


def _scan(folder: Path) -> set[tuple[str, str]]:
    """Return the failed checks and their files."""
    assert _CHECKOV.is_file(), f"cannot find {_CHECKOV}: run `make test`, which installs it"
    flags = ["--framework", "kubernetes", "--quiet", "--compact", "--skip-download", "-o", "json"]
    done = subprocess.run(
        [_CHECKOV, "-d", folder, *flags, "--skip-check", ",".join(_SKIPPED_CHECKS)],
        env={**os.environ, "LOG_LEVEL": "ERROR"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    results = json.loads(done.stdout)["results"]
    return {(f["check_id"], f["file_path"].strip("/")) for f in results["failed_checks"]}


def test_scanner_finds_only_the_deliberately_broken_manifest(
    tmp_path: Path,
) -> None:
    for number, folder in enumerate(roots()):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump_all(render(folder)))
    for example in (CHART / "examples").glob("*.yaml"):
        manifests = objects(yaml.safe_load(example.read_text()))
        (tmp_path / f"chart-{example.name}").write_text(yaml.safe_dump_all(manifests))
    broken = copy.deepcopy(only(render(PROMETHEUS / "backup"), "CronJob"))
    for container in containers(pods([broken])[0]):
        container["securityContext"] = {"privileged": True}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken))
    found = _scan(tmp_path)
    assert ("CKV_K8S_16", "broken.yaml") in found, "a privileged container"
    assert {check for check, file in found if file != "broken.yaml"} == set()
