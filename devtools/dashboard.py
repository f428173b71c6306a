"""Writes the Grafana dashboard of `panels`: `python -m devtools.dashboard`."""

import json
from collections.abc import Iterator
from typing import Any

from devtools.alerts import FOLDER
from devtools.panels import ROWS, Panel

PATH = FOLDER / "exporter" / "dashboard.json"

Json = dict[str, Any]
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_ROW_HEIGHT = 1
_WIDTH = 24
_PRICE = "0.023"  # USD for a GB and month of S3 Standard, us-east-1, list price


def dashboard() -> Json:
    """Return the dashboard as Grafana takes it."""
    return {
        "uid": "prometheus-backup",
        "title": "Prometheus backups",
        "tags": ["prometheus", "backup"],
        "description": "Made by `python -m devtools.dashboard` of prometheus-backup.",
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "refresh": "5m",
        "time": {"from": "now-30d", "to": "now"},
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [*_variables()]},
        "panels": [*_panels()],
    }


def _variables() -> Iterator[Json]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
    }
    yield {
        "name": "repository",
        "label": "Repository",
        "type": "query",
        "datasource": _SOURCE,
        "query": {
            "query": "label_values(prometheus_backup_good_backups, repository)",
            "refId": "r",
        },
        "definition": "label_values(prometheus_backup_good_backups, repository)",
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
    yield {
        "name": "price",
        "label": "USD for a GB and month",
        "type": "textbox",
        "query": _PRICE,
        "current": {"text": _PRICE, "value": _PRICE},
        "options": [{"selected": True, "text": _PRICE, "value": _PRICE}],
    }


def _panels() -> Iterator[Json]:
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        place = {"h": _ROW_HEIGHT, "w": _WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}
        top += _ROW_HEIGHT
        left, line = 0, 0
        for panel in panels:
            if left + panel.width > _WIDTH:
                top, left, line = top + line, 0, 0
            number += 1
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield _panel(panel, number, place)
            left, line = left + panel.width, max(line, panel.height)
        top += line


def _panel(panel: Panel, number: int, place: Json) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in panel.thresholds],
        },
        "mappings": [
            {"type": "value", "options": {value: {"text": text, "color": color}}}
            for value, (text, color) in panel.mappings.items()
        ],
    }
    if panel.kind == "timeseries":
        mode = "normal" if panel.stacked else "none"
        filled = 20 if panel.stacked else 0
        defaults["custom"] = {
            "stacking": {"mode": mode},
            "fillOpacity": filled,
            "showPoints": "auto",
        }
        options: Json = {"legend": {"displayMode": "list", "placement": "bottom"}}
    else:
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background" if len(panel.thresholds) > 1 or panel.mappings else "value",
            "textMode": "auto",
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend}
            for n, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


def main() -> None:
    """Write the file."""
    PATH.write_text(text())


if __name__ == "__main__":
    main()
