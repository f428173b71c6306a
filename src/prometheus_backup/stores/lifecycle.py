"""What the lifecycle rules of a bucket delete: which objects, and when. Pure.

Format: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLifecycleConfiguration.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prometheus_backup.model import counted, printable

_LARGEST = 1 << 60
"""Bytes; larger than any object."""


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """An enabled rule that deletes objects by age.

    It applies to objects whose keys begin with `prefix`, that have all these `tags`, and whose size
    in bytes is from `least` to `most`. `when` is for messages, such as `after 30 days`.
    """

    name: str
    when: str
    prefix: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    least: int = 0
    most: int = _LARGEST

    def may_expire(self, folder: str, *, tags: Mapping[str, str]) -> bool:
        """Return whether it may delete an object below `folder`, which ends with a slash.

        Objects there have at least one byte, and all, some or none of these tags.
        """
        begins = folder.startswith(self.prefix) or self.prefix.startswith(folder)
        return begins and self.tags.items() <= tags.items() and max(self.least, 1) <= self.most

    def __str__(self) -> str:
        return f"rule {self.name} expires objects {self.when}"


def expiry_rules(rules: Sequence[Mapping[str, Any]]) -> Sequence[ExpiryRule]:
    """Return the enabled rules that delete current objects by age.

    Other actions leave these objects alone: they move them to another class, or delete older
    versions, incomplete uploads, or delete markers without older versions.
    """
    return [
        _expiry_rule(rule, f"number {number}")
        for number, rule in enumerate(rules, 1)
        if rule.get("Status") == "Enabled" and rule.get("Expiration", {}).keys() & {"Days", "Date"}
    ]


def _expiry_rule(rule: Mapping[str, Any], unnamed: str) -> ExpiryRule:
    chosen = rule.get("Filter", {})
    chosen = chosen.get("And", chosen)
    tags = [*chosen.get("Tags", []), *([chosen["Tag"]] if "Tag" in chosen else [])]
    return ExpiryRule(
        name=printable(rule.get("ID") or unnamed),
        when=_when(rule["Expiration"]),
        # Before filters were introduced, the prefix belonged to the rule itself.
        prefix=chosen.get("Prefix") or rule.get("Prefix") or "",
        tags={tag["Key"]: tag["Value"] for tag in tags},
        least=chosen.get("ObjectSizeGreaterThan", -1) + 1,
        most=chosen.get("ObjectSizeLessThan", _LARGEST + 1) - 1,
    )


def _when(expiration: Mapping[str, Any]) -> str:
    if "Days" in expiration:
        return f"after {counted(expiration['Days'], 'day')}"
    date = expiration["Date"]
    return f"on {date:%Y-%m-%d}" if isinstance(date, datetime) else f"on {date}"
