"""The settings of a Prometheus that change its answers to queries. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from prometheus_backup.prometheus.promql import DEFAULT_LOOKBACK, parse_duration
from prometheus_backup.repository.manifest import Prometheus

_MORE_FEATURES = frozenset({"use-start-timestamps", "type-and-unit-labels"})
"""Passed to the query engine, like those with `promql` in their names (cmd/prometheus/main.go)."""


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """How queries are evaluated. `features` are needed besides those that change no answer.

    `evaluation_interval` is the step of subqueries without one; None is Prometheus' own.
    """

    lookback: timedelta
    evaluation_interval: timedelta | None = None
    features: tuple[str, ...] = ()


def query_settings(source: Prometheus) -> QuerySettings:
    """Return the settings with which the source of a backup answered queries."""
    return QuerySettings(
        lookback=parse_duration(source.lookback) or DEFAULT_LOOKBACK,
        evaluation_interval=parse_duration(source.evaluation_interval),
        features=promql_features(source.features or ()),
    )


def promql_features(features: Iterable[str]) -> tuple[str, ...]:
    """Return the features that change the answers to queries."""
    found = (f for f in features if f.startswith("promql-") or f in _MORE_FEATURES)
    return tuple(f for f in found if re.fullmatch(r"[a-z0-9-]{1,100}", f))
