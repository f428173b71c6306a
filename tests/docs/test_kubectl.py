"""kubectl commands in the operations pages use names from the manifests."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tests.support.pages import DOCS, ROOT, Page, kubectl_commands

PAGES = [
    Page(DOCS / "how-to" / "disaster-recovery.md"),
    Page(DOCS / "how-to" / "troubleshooting.md"),
    Page(DOCS / "how-to" / "alerts.md"),
    Page(DOCS / "explanation" / "security.md"),
]
MANIFESTS = ROOT / "infrastructure" / "kubernetes" / "prometheus"


def _documents(folder: str) -> Iterator[dict[str, Any]]:
    for path in sorted((MANIFESTS / folder).glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


BACKUP = list(_documents("backup"))
(CRONJOB,) = [d for d in BACKUP if d["kind"] == "CronJob"]
CRONJOBS = {
    d["metadata"]["name"]
    for folder in ("backup", "verify", "drill")
    for d in _documents(folder)
    if d["kind"] == "CronJob"
}
(NAMES,) = [d["data"] for d in BACKUP if d["kind"] == "ConfigMap" and "volume" in d["data"]]
POD_NAME = f"{NAMES['statefulset']}-{NAMES['replica']}"
(NAMESPACE,) = [d["namespace"] for d in BACKUP if d["kind"] == "Kustomization"]
JOB = CRONJOB["spec"]["jobTemplate"]
POD = JOB["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


def _commands(page: Page) -> list[list[str]]:
    """Return the words of each kubectl command of a page, up to a pipe."""
    texts = [*(block.text for block in page.blocks("bash")), *page.inline_code()]
    found = [words for text in texts for words in kubectl_commands(text)]
    return [words for words in found if "-n" in words]


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
        name, _, value = label.removesuffix(",!command").partition("=")
        assert JOB["metadata"]["labels"][name] == value, (page, words)
        assert POD["metadata"]["labels"][name] == value, (page, words)
    for name in _named(words, "cronjob"):
        assert name in CRONJOBS, (page, words)
    for name in _named(words, "job"):
        assert name.startswith("prometheus-backup-manual-"), (page, words)
    for pod in _named(words, "exec"):
        assert pod == POD_NAME, (page, words)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_kubernetes_names_match_the_manifests(page: Page) -> None:
    for claim in re.findall(r"prometheus-storage-\S+?(?=[`,. ])", page.text):
        assert claim == f"{NAMES['volume']}-{POD_NAME}"
    for label in re.findall(r"statefulset.kubernetes.io/pod-name: ([\w-]+)", page.text):
        assert label == POD_NAME
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
