"""The table of metrics keeps to Prometheus' own rules for names."""

import re

from prometheus_backup.metrics.families import FAMILIES

_UNITS = ("bytes", "seconds", "code", "info", "verdict", "readable")
_COUNTED = ("files", "objects", "backups", "snapshots", "blocks", "findings")


def test_names_begin_with_the_program_and_end_in_the_unit() -> None:
    for name in FAMILIES:
        assert re.fullmatch(r"prometheus_backup_[a-z_]+", name)
        assert name.rpartition("_")[2] in (*_UNITS, *_COUNTED), name


def test_help_is_one_line_that_ends_like_a_sentence() -> None:
    for family in FAMILIES.values():
        assert re.fullmatch(r"[A-Z0-9][^\n]*\.", family.help), family.name
