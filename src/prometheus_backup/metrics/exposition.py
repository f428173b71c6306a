"""Write and read the Prometheus text format.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from prometheus_backup.metrics.families import FAMILIES, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Collected(Collector):
    """Samples as a prometheus-client collector, by family in the order of the table."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        """Yield the families that have samples."""
        by_name: dict[str, list[Sample]] = {}
        for sample in self._samples:
            by_name.setdefault(sample.name, []).append(sample)
        for name, family in FAMILIES.items():
            if name not in by_name:
                continue
            metric = GaugeMetricFamily(name, family.help)
            for sample in by_name[name]:
                metric.add_sample(name, dict(sample.labels), sample.value)
            yield metric


def text(samples: Sequence[Sample]) -> str:
    """Return samples in the text format, with HELP and TYPE."""
    return generate_latest(Collected(samples)).decode()


def parse(document: str) -> Iterable[Sample]:
    """Yield the samples of metrics that are in the table. Raises ValueError for another format."""
    for metric in text_string_to_metric_families(document):
        for sample in metric.samples:
            if sample.name in FAMILIES:
                yield Sample(sample.name, sample.value, sample.labels)
