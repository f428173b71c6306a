"""The files of `infrastructure/aws` as tests use them, and the bucket that they name."""

import json
from typing import Any

from tests.support.pages import ROOT

AWS = ROOT / "infrastructure" / "aws"
BUCKET = "health-tracker-prometheus-backups"
PREFIX = "prometheus-snapshots"

Statement = dict[str, Any]


def document(name: str) -> dict[str, Any]:
    """A file of `infrastructure/aws`, such as `iam/writer.json`."""
    value = json.loads((AWS / name).read_text())
    assert isinstance(value, dict)
    return value


def statements(name: str, *, without: str = "") -> list[Statement]:
    """The statements of an IAM policy, with one action taken out of all of them."""
    kept = []
    for statement in document(f"iam/{name}.json")["Statement"]:
        actions = [a for a in listed(statement["Action"]) if a != without]
        if actions:
            kept.append({**statement, "Action": actions})
    return kept


def listed(value: str | list[str]) -> list[str]:
    """What IAM lets stand alone or in a list, as a list."""
    return [value] if isinstance(value, str) else value
