"""The status that Prometheus reports about itself, read from several of its pages."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from prometheus_backup.model import instant_from_ms, printable
from prometheus_backup.prometheus.configuration import (
    configured_retention,
    evaluation_interval,
    float_chunk_encoding,
    out_of_order_window,
)
from prometheus_backup.prometheus.fields import Fields
from prometheus_backup.prometheus.promql import parse_duration

_NO_TIME = 2**63 - 1
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """The status that Prometheus reports. `clock` is the time of its clock, to the second.

    `storage_path` is absolute if Prometheus reports its working directory. `head_from` is the time
    of the first sample in memory, None if there are none. `lookback` is the lookback delta of
    queries, as a PromQL duration. `reload_interval` is how often new blocks are loaded. `features`
    are those that are enabled. `float_encoding` is the configured encoding of float chunks, "" if
    none is configured.
    """

    version: str
    revision: str
    start_time: str
    hostname: str | None
    retention: str
    admin_api: bool
    agent: bool
    storage_path: str
    out_of_order: str | None
    head_series: int
    head_chunks: int
    head_from: datetime | None
    lookback: str
    reload_interval: timedelta
    clock: datetime
    features: tuple[str, ...] = ()
    evaluation_interval: str = ""
    float_encoding: str = ""

    @classmethod
    def unknown(cls, now: datetime) -> Self:
        """Return the status of a Prometheus that does not answer."""
        return cls(
            version="",
            revision="",
            start_time="",
            hostname=None,
            retention="unknown",
            admin_api=False,
            agent=False,
            storage_path="",
            out_of_order=None,
            head_series=0,
            head_chunks=0,
            head_from=None,
            lookback="",
            reload_interval=_MINUTE,
            clock=now,
        )

    @property
    def is_known(self) -> bool:
        """Return whether Prometheus reported it."""
        return bool(self.version)


def read_status(flags: Fields, clock: datetime, get: Callable[[str], Fields]) -> SourceStatus:
    """Return the status; `get` returns the data of a page. Raises UnexpectedValue."""
    runtime = get("/api/v1/status/runtimeinfo")
    build = get("/api/v1/status/buildinfo")
    config = get("/api/v1/status/config").raw_text("yaml")
    version = build.text("version")
    configured = configured_retention(config, flags.values, version=version)
    retention = runtime.text("storageRetention") if configured is None else configured
    out_of_order = out_of_order_window(config)
    agent = _is_agent(flags)
    path = "/api/v1/status/tsdb?limit=1"
    head = Fields(path, {}) if agent else get(path).object("headStats")
    return SourceStatus(
        version=version,
        revision=build.text("revision"),
        start_time=runtime.text("startTime"),
        hostname=runtime.text("hostname") or None,
        retention=printable(retention),
        admin_api=flags.text("web.enable-admin-api") == "true",
        agent=agent,
        storage_path=str(Path(runtime.text("CWD"), flags.text("storage.tsdb.path"))),
        out_of_order=printable(out_of_order) if out_of_order else None,
        head_series=head.count("numSeries"),
        head_chunks=head.count("chunkCount"),
        head_from=_head_from(head),
        lookback=flags.text("query.lookback-delta"),
        reload_interval=_reload_interval(flags),
        clock=clock,
        features=_features(flags),
        evaluation_interval=printable(evaluation_interval(config)),
        float_encoding=float_chunk_encoding(config),
    )


def _is_agent(flags: Fields) -> bool:
    return flags.text("agent") == "true" or "agent" in _features(flags)


def _features(flags: Fields) -> tuple[str, ...]:
    names = re.split(r"[\s,]+", flags.text("enable-feature"))
    return tuple(sorted({name for name in names if name}))


def _reload_interval(flags: Fields) -> timedelta:
    """Return how often new blocks are loaded: a flag since 3.9, before that once a minute."""
    return parse_duration(flags.text("storage.tsdb.block-reload-interval")) or _MINUTE


def _head_from(head: Fields) -> datetime | None:
    """Return the start of the head; None if it is empty.

    An empty head has no series; its minTime is the largest int64, or the end of the newest block.
    """
    begin = head.number("minTime")
    if not head.count("numSeries") or begin is None or begin >= _NO_TIME:
        return None
    return instant_from_ms(begin)
