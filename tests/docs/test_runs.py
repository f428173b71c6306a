"""Code in the documentation that is marked with `<!-- runs: ... -->` works with real servers."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import clean_environment
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from devtools.seaweedfs import SeaweedFS
from tests.support.pages import DOCS, Block, Page, pages

_MARKED = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in pages()
    for number, block in enumerate(page.blocks())
    if block.runs
]


@dataclass(frozen=True)
class Environment:
    """A Prometheus, a bucket with one backup of it, and a shell with their settings."""

    prometheus: PrometheusServer
    bucket: S3Bucket
    environment: dict[str, str]

    def shell(self, script: str, folder: Path, *, codes: tuple[int, ...] = (0,)) -> str:
        """Run a script in a folder; return its standard output."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in codes, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, command: str, folder: Path, *, codes: tuple[int, ...] = (0,)) -> object:
        """Run `prometheus-backup COMMAND --json`; return the document."""
        return json.loads(self.shell(f"prometheus-backup {command} --json", folder, codes=codes))

    def backups(self) -> list[str]:
        """Return the ids of the backups, oldest first."""
        keys = self.bucket.keys()
        return [key.split("/")[1] for key in keys if key.endswith("/metadata.json")]

    @property
    def backup_id(self) -> str:
        """The oldest backup."""
        return self.backups()[0]

    def localized(self, text: str, folder: Path) -> str:
        """Replace URLs, paths and names in documented code by those of this test."""
        for documented, actual in {
            "http://localhost:9090": self.prometheus.url,
            "/var/lib/prometheus": str(self.prometheus.data_dir),
            "/srv/": f"{folder}/",
            "health-tracker-prometheus-backups": self.bucket.name,
            "backup-20250122-020000": self.backup_id,
            "/usr/bin/prometheus": str(self.prometheus.binaries.prometheus),
            "| jq .": f"| {sys.executable} -m json.tool",
        }.items():
            text = text.replace(documented, actual)
        return text


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory,
    prometheus_3: PrometheusBinaries,
    tsdb_blocks: Path,
    seaweedfs: SeaweedFS,
) -> Iterator[Environment]:
    folder = tmp_path_factory.mktemp("documented")
    shutil.copytree(tsdb_blocks, folder / "data")
    bucket = seaweedfs.endpoint().new_bucket()
    with PrometheusServer(prometheus_3, folder / "data") as prometheus:
        prometheus.fill_head()
        # The default queries look five minutes back, before the first scrape.
        (folder / "queries").write_text("sum(devtools_head)\n")
        environment = clean_environment(
            folder / "home",
            PROMETHEUS_URL=prometheus.url,
            PROMETHEUS_DATA_DIR=str(prometheus.data_dir),
            S3_BUCKET=bucket.name,
            PROMETHEUS_BINARY=str(prometheus_3.prometheus),
            FINGERPRINT_FILE=str(folder / "queries"),
            AWS_PAGER="",
            **bucket.endpoint.environment(),
        )
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        created = Environment(prometheus, bucket, environment)
        created.shell("prometheus-backup backup", folder)
        yield created
        prometheus.kill()
    bucket.remove()


@pytest.mark.parametrize("block", _MARKED)
def test_code_runs(block: Block, environment: Environment, tmp_path: Path) -> None:
    script = environment.localized(block.text, tmp_path)
    if "REPOSITORY=" in script:
        script = f"unset S3_BUCKET\n{script}"
    merges = block.runs == "merge"
    script = f"set +e\n{script}" if merges else script
    output = environment.shell(script, tmp_path, codes=(3,) if merges else (0,))
    expected = {
        "backup": "checksum",
        "restore": environment.backup_id,
        "drill": "ready for queries after",
        "plain": "download: s3://",
        "metrics": "prometheus_backup_good_backups{",
        "check": "ok    prometheus: Admin API on",
        "flags": '"web.enable-admin-api":"true"',
        "loaded": "prometheus_tsdb_blocks_loaded ",
        "query": '"status":"success"',
        "merge": "the start of the samples in memory",  # so the newest block is not restored yet
        "latest": "size   pass",
        "heal": "none bad",
        "report": "wrote report.html",
        "without-admin-api": "(no head)",
        "empty": "--storage.tsdb.retention.time=",
    }
    assert expected[block.runs] in output
    if "restored" in script:
        _require_whole_restore(environment, tmp_path)


def _require_whole_restore(environment: Environment, folder: Path) -> None:
    """Assert that all blocks of a backup were restored; other tests may have added backups."""
    blocks = {path.parent.name for path in (folder / "restored").glob("*/meta.json")}
    manifests = [
        json.loads(environment.bucket.get(f"prometheus-snapshots/{backup}/metadata.json"))
        for backup in environment.backups()
    ]
    assert blocks in [{block["ulid"] for block in manifest["blocks"]} for manifest in manifests]


def test_listing_commands_on_the_format_page_work(environment: Environment, tmp_path: Path) -> None:
    (block,) = [b for b in Page(DOCS / "repository-format.md").blocks("bash") if b.runs]
    last, count, *_ = environment.localized(block.text, tmp_path).splitlines()
    backups = environment.backups()
    assert environment.shell(last, tmp_path).split() == ["PRE", f"{backups[-1]}/"]
    assert int(environment.shell(count, tmp_path)) == len(backups)


def _fields(command: str) -> set[str]:
    """Return the fields that docs/json.md lists for a command."""
    section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", _JSON, re.MULTILINE | re.DOTALL)
    assert section, command
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section[1], re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


_JSON = (DOCS / "json.md").read_text()


def test_json_page_has_every_field_and_no_other(environment: Environment, tmp_path: Path) -> None:
    def fields(command: str, *path: str | int, codes: tuple[int, ...] = (0,)) -> set[str]:
        found = environment.json(command, tmp_path, codes=codes)
        for step in path:
            found = found[step]  # type: ignore[index]  # a JSON document
        assert isinstance(found, dict)
        return set(found)

    repository = f"--repository file://{tmp_path}/repository --s3-bucket ''"
    assert fields(f"backup {repository}") == _fields("`backup`")
    assert fields("list") == {"repository", "backups"}
    listed = fields("list", "backups", 0)
    assert listed == _fields("`list`")
    assert fields("show latest") == listed | _fields("`show`")
    assert fields("verify --level size") == {"outcome", "results"}
    assert fields("verify --level size", "results", 0) == _fields("`verify`")
    snapshot = environment.prometheus.snapshot()
    assert fields(f"inspect {snapshot}") == {"path", "outcome", "blocks"}
    assert fields(f"inspect {snapshot}", "blocks", 0) == _fields("`inspect`")
    assert fields("drill latest") == _fields("`drill`")
    assert fields("drill latest", "fingerprints", 0) == {
        *("query", "at", "verdict", "detail", "series"),
    }
    assert fields("open latest --dry-run") == _fields("`open`") - {"outcome", "url"}
    assert fields("hold latest --reason audit") == _fields("`hold`")
    assert fields("release latest") == _fields("`release`")
    applied = {"outcome", "deleted", "swept", "problems", "archive_deleted"}
    assert fields("prune --dry-run") == _fields("`prune`") - applied
    assert fields("prune") == _fields("`prune`")
    forget = fields("history forget --from 2001-01-01 --to 2001-01-02 --apply")
    assert fields("history") | forget == _fields("`history`")
    restored = {"outcome", "files", "seconds", "damaged", "loaded", "loading"}
    assert fields("restore latest target --dry-run") == _fields("`restore`") - restored
    assert fields("restore latest target") == _fields("`restore`")
    (min(path for path in snapshot.iterdir()) / "index").unlink()
    heal = f"heal {snapshot} --prometheus-url http://127.0.0.1:9"
    bad = fields(heal, "bad", 0, codes=(41,))
    assert fields(heal, codes=(41,)) | bad == _fields("`heal`")
    assert fields("metrics") == {"metrics"}
    assert fields("metrics", "metrics", 0) == _fields("`metrics`") - {"metrics"}
    assert fields("estimate --tsdb-size 1GB") == _fields("`estimate`")
    assert fields("check") == {"ok", "checks", "advice", "settings"}
    assert fields("check", "checks", 0) == {"subject", "ok", "detail", "fix"}
    assert fields("show backup-20200101-000000", codes=(30,)) == _fields("A failure")
