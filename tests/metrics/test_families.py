"""The table of metrics follows the naming rules of Prometheus."""

import re
import subprocess

from devtools.fetch_prometheus import PrometheusBinaries
from prometheus_backup.metrics.exposition import parse, text
from prometheus_backup.metrics.families import FAMILIES, REPOSITORY, Sample

_UNITS = ("bytes", "seconds", "code", "info", "verdict", "readable")
_COUNTED = ("files", "objects", "backups", "snapshots", "blocks", "findings")


def test_names_begin_with_the_program_and_end_in_the_unit() -> None:
    for name in FAMILIES:
        assert re.fullmatch(r"prometheus_backup_[a-z_]+", name)
        assert name.rpartition("_")[2] in (*_UNITS, *_COUNTED), name


def test_help_is_one_sentence_on_one_line() -> None:
    for family in FAMILIES.values():
        assert re.fullmatch(r"[A-Z0-9][^\n]*\.", family.help), family.name


def test_promtool_accepts_every_metric(
    prometheus_binaries: PrometheusBinaries,
) -> None:
    samples = [
        Sample(family.name, 1.0, dict.fromkeys((REPOSITORY, *family.labels), "x"))
        for family in FAMILIES.values()
    ]
    done = subprocess.run(
        [prometheus_binaries.promtool, "check", "metrics"],
        input=text(samples),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_written_samples_are_read_back_unchanged() -> None:
    odd = 's3://bucket/a "quoted" \\ back\nslash'
    samples = [Sample("prometheus_backup_good_backups", 1.5e9 + 0.125, {REPOSITORY: odd})]
    assert list(parse(text(samples))) == samples
