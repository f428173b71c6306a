"""The data of a report as JSON: what the page embeds, and `report --json` prints. Pure.

Format: docs/json.md.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from prometheus_backup.cost.forecast import forecast_document
from prometheus_backup.model import printable, rfc3339
from prometheus_backup.report.plan import Line, Report
from prometheus_backup.repository.verification import Verification
from prometheus_backup.spans import Span

Document = dict[str, Any]

MOST_REMOVALS = 100
MOST_FAILURES = 50
MOST_FINDINGS = 20
MOST_CHARACTERS = 300
"""What a page has at most, so that it can be mailed; findings are those of one failure."""


def report_document(report: Report) -> Document:
    """Return the data of a report."""
    verdict, timeline = report.verdict, report.timeline
    return {
        "repository": report.repository,
        "made_at": rfc3339(report.made_at),
        "tool_version": report.version,
        "settings": dict(report.settings),
        "verdict": {
            "protection": verdict.protection.value,
            "reasons": list(verdict.reasons),
            "since": rfc3339(verdict.since) if verdict.since else None,
        },
        "timeline": {
            **_times(timeline.window),
            "continuous": _times(timeline.continuous) if timeline.continuous else None,
            "covered": [_times(s) for s in timeline.covered],
            "holes": [_times(s) for s in timeline.holes],
            "missing": [{"period": m.period, "due": rfc3339(m.due)} for m in timeline.missing],
            "removals": [
                {
                    "backup_id": r.backup_id,
                    "day": r.day.isoformat(),
                    "lost": [_times(s) for s in r.lost],
                }
                for r in timeline.removals[:MOST_REMOVALS]
            ],
        },
        "forecast": forecast_document(report.forecast, report.strategy)
        if report.forecast
        else None,
        "drills": [_result(v) for v in report.drills],
        "failures": [_result(v) for v in report.failures[:MOST_FAILURES]],
        "backups": [_backup(line) for line in report.lines],
    }


def embedded(document: Mapping[str, Any]) -> str:
    """Return a document as JSON that may stand inside a `<script>` element, as it is.

    A browser ends the element at `</script` and reads `<!--` as something else, wherever they
    stand, so there is no `<` in it.
    """
    text = json.dumps(document, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def sha256_of(data: str) -> str:
    """Return the SHA-256 of the embedded data, in hexadecimal digits."""
    return hashlib.sha256(data.encode()).hexdigest()


def _times(span: Span) -> Document:
    return {"from": rfc3339(span.start), "to": rfc3339(span.end)}


def _result(result: Verification) -> Document:
    shown = result.findings[:MOST_FINDINGS]
    return {
        "backup_id": result.backup_id,
        "level": result.level.value,
        "verdict": result.verdict.value,
        "verified_at": rfc3339(result.verified_at),
        "seconds": dict(result.seconds),
        "finding_count": len(result.findings),
        "findings": [printable(str(f), max_length=MOST_CHARACTERS) for f in shown],
    }


def _backup(line: Line) -> Document:
    entry, decision = line.entry, line.decision
    header, verified = entry.header, entry.verified
    found: Document = {"backup_id": entry.backup_id, "state": entry.state.value, "good": entry.good}
    if header:
        found |= {
            "size_bytes": header.totals.bytes,
            "min_time": rfc3339(header.min_time) if header.min_time else None,
            "max_time": rfc3339(header.max_time) if header.max_time else None,
        }
        if header.degraded:
            found["degraded"] = list(header.degraded[:MOST_FINDINGS])
    else:
        found["problem"] = entry.problem
    found["verified"] = (
        {"level": verified[0].value, "at": rfc3339(verified[1])} if verified else None
    )
    if entry.read_whole_at:
        found["last_read"] = rfc3339(entry.read_whole_at)
    if entry.hold:
        found["hold"] = entry.hold.reason
    if decision:
        found |= {"keep": decision.keep, "tiers": [t.value for t in decision.tiers]}
    return found
