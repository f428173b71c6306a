"""kubectl commands in the operations pages use names from the manifests."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml

from devtools.fetch_container_tools import find_kubectl
from tests.support.kustomize import render
from tests.support.pages import DOCS, ROOT, Page

PAGES = [
    Page(DOCS / "how-to" / "disaster-recovery.md"),
    Page(DOCS / "how-to" / "troubleshooting.md"),
    Page(DOCS / "explanation" / "security.md"),
]
MANIFESTS = ROOT / "infrastructure" / "kubernetes" / "prometheus"


def _documents(folder: str) -> Iterator[dict[str, Any]]:
    for path in sorted((MANIFESTS / folder).glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


BACKUP = list(_documents("backup"))
(CRONJOB,) = [d for d in BACKUP if d["kind"] == "CronJob"]
(NAMES,) = [d["data"] for d in BACKUP if d["kind"] == "ConfigMap" and "claim" in d["data"]]
(NAMESPACE,) = [d["namespace"] for d in BACKUP if d["kind"] == "Kustomization"]
JOB = CRONJOB["spec"]["jobTemplate"]
(JOB_OF_RESTORE,) = [d["metadata"]["name"] for d in _documents("restore") if d["kind"] == "Job"]
POD = JOB["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


def _commands(page: Page) -> list[list[str]]:
    """Return the words of each kubectl command of a page, up to a pipe."""
    lines = [line for block in page.blocks("bash") for line in block.text.splitlines()]
    parts = [part for text in [*lines, *page.inline_code()] for part in text.split(" | ")]
    return [shlex.split(p) for p in parts if p.startswith("kubectl ") and " -n " in p]


ALL = [(page.name, words) for page in PAGES for words in _commands(page)]


def _options(words: list[str], name: str) -> list[str]:
    return [after for word, after in pairwise(words) if word == name]


def _named(words: list[str], kind: str) -> list[str]:
    """Return the names of one kind in a command: `kind/NAME`, `--from=kind/NAME`, `kind NAME`."""
    slashed = [w.rpartition("/")[2] for w in words if re.match(rf"(--from=)?{kind}/", w)]
    if kind in words:
        rest = words[words.index(kind) + 1 :]
        while rest and rest[0].startswith("-"):
            rest = rest[2:]  # -n NAMESPACE
        slashed += rest[:1]
    return slashed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_have_kubectl_commands(page: Page) -> None:
    assert _commands(page)


@pytest.mark.parametrize(("page", "words"), ALL, ids=lambda v: v if isinstance(v, str) else "")
def test_command_uses_names_from_the_manifests(page: str, words: list[str]) -> None:
    assert _options(words, "-n") == [NAMESPACE], (page, words)
    for label in _options(words, "-l"):
        name, _, value = label.partition("=")
        assert JOB["metadata"]["labels"][name] == value, (page, words)
        assert POD["metadata"]["labels"][name] == value, (page, words)
    for name in _named(words, "cronjob"):
        assert name == CRONJOB["metadata"]["name"], (page, words)
    for name in _named(words, "job"):
        known = name == JOB_OF_RESTORE or name.startswith("prometheus-backup-manual-")
        assert known, (page, words)
    for pod in _named(words, "exec"):
        assert pod == NAMES["pod"], (page, words)
    if "secret" in words:
        _require_secret(words)


def _require_secret(words: list[str]) -> None:
    wanted = [e["valueFrom"]["secretKeyRef"] for e in CONTAINER["env"] if "valueFrom" in e]
    given = {w.removeprefix("--from-literal=").partition("=")[0] for w in words if "literal" in w}
    assert {ref["key"] for ref in wanted} == given
    assert words[words.index("generic") + 1] in {ref["name"] for ref in wanted}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_applied_folders_exist(page: Page) -> None:
    text = "\n".join([block.text for block in page.blocks("bash")])
    for folder in re.findall(r"kubectl (?:apply -k|kustomize) (\S+)", text):
        assert (ROOT / folder / "kustomization.yaml").is_file(), f"{page.name} applies {folder}"


RESTORE = MANIFESTS / "restore"
CHANGED_JOBS = [
    line.rpartition(" | ")[0]
    for block in PAGES[0].blocks("bash")
    for line in block.text.splitlines()
    if line.startswith("kubectl kustomize ")
]


def test_runbook_only_changes_the_arguments_of_the_restore_job() -> None:
    rendered = render(RESTORE)
    (job,) = [m for m in rendered if m["kind"] == "Job"]
    found = []
    for script in CHANGED_JOBS:
        environment = {**os.environ, "PATH": f"{find_kubectl().path.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        manifests = list(yaml.safe_load_all(done.stdout))
        (changed,) = [m for m in manifests if m["kind"] == "Job"]
        (container,) = changed["spec"]["template"]["spec"]["containers"]
        found.append(container["args"])
        container["args"] = job["spec"]["template"]["spec"]["containers"][0]["args"]
        assert changed == job
    assert found == [
        ["restore", "latest", "/prometheus", "--merge", "--dry-run"],
        ["heal", "/prometheus"],
        ["heal", "/prometheus", "--apply"],
    ]


def test_operator_names_match_its_overlay() -> None:
    path = MANIFESTS / "overlays" / "prometheus-operator" / "kustomization.yaml"
    (names,) = yaml.safe_load(path.read_text())["configMapGenerator"]
    wanted = dict(literal.split("=", 1) for literal in names["literals"])
    table = re.findall(r"^\| (`[a-zA-Z`, ]+`) \| (`.+`) \|$", PAGES[0].text, re.MULTILINE)
    given = {
        name: value
        for cells in table
        for name, value in zip(*(re.findall(r"`([^`]+)`", c) for c in cells), strict=True)
        if name in wanted
    }
    assert given == {name: wanted[name] for name in given}
    assert len(given) == 6  # all except the backup labels


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_kubernetes_names_match_the_manifests(page: Page) -> None:
    for claim in re.findall(r"prometheus-storage-\S+?(?=[`,. ])", page.text):
        assert claim == NAMES["claim"]
    for label in re.findall(r"statefulset.kubernetes.io/pod-name: ([\w-]+)", page.text):
        assert label == NAMES["pod"]
    for path in re.findall(r"`((?:infrastructure|components|overlays)/[\w/.-]+)`", page.text):
        root = ROOT if path.startswith("infrastructure") else MANIFESTS
        assert (root / path).exists(), f"{page.name} names {path}"


def test_log_messages_on_the_page_exist_in_the_code() -> None:
    page = PAGES[1].text
    table = page.partition("## By log message")[2].partition("\n## ")[0]
    phrases = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    source = "".join(p.read_text() for p in sorted((ROOT / "src").rglob("*.py")))
    messages = re.sub(r'"\s+f?"', "", source)  # joins strings that span lines
    assert len(phrases) > 10
    assert [phrase for phrase in phrases if phrase not in messages] == []
