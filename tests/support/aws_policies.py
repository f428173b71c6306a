"""Reads the files of `infrastructure/aws` for tests, and names their bucket and prefix."""

import json
from typing import Any

from tests.support.pages import ROOT

AWS = ROOT / "infrastructure" / "aws"
BUCKET = "health-tracker-prometheus-backups"
PREFIX = "prometheus-snapshots"

Statement = dict[str, Any]


def document(name: str) -> dict[str, Any]:
    """Return a file of `infrastructure/aws`, such as `iam/writer.json`."""
    value = json.loads((AWS / name).read_text())
    assert isinstance(value, dict)
    return value


def statements(name: str, *, without: str = "") -> list[Statement]:
    """Return the statements of an IAM policy, with one action removed from all of them."""
    kept = []
    for statement in document(f"iam/{name}.json")["Statement"]:
        actions = [a for a in as_list(statement["Action"]) if a != without]
        if actions:
            kept.append({**statement, "Action": actions})
    return kept


def as_list(value: str | list[str]) -> list[str]:
    """Return a list, also for a single value, which IAM allows instead of a list."""
    return [value] if isinstance(value, str) else value
