"""Renders the Helm chart as `helm template` does, with Helm's own library."""

import functools
from collections.abc import Mapping
from typing import Any

import helm_python
import yaml

from devtools.chart import CHART
from tests.support.kustomize import Manifest

NAMESPACE = "observability"
NOTES = "NOTES.txt"


@functools.cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def rendered(values: Mapping[str, Any], namespace: str = NAMESPACE) -> dict[str, str]:
    """Return the text of each template. Values that the schema refuses are an error, as in Helm."""
    chart = _chart()
    chart.validate_schema({**chart.merge_values(dict(values))})
    texts = chart.render(dict(values), name="prometheus-backup", namespace=namespace)
    return {name.rpartition("/")[2]: text for name, text in texts.items()}


def objects(values: Mapping[str, Any], namespace: str = NAMESPACE) -> list[Manifest]:
    """Return the objects that `helm install` with these values creates."""
    texts = rendered(values, namespace)
    texts.pop(NOTES)
    documents = (d for text in texts.values() for d in yaml.safe_load_all(text))
    return [document for document in documents if document]
