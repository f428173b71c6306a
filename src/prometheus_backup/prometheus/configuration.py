"""Read the running configuration of Prometheus, as `/api/v1/status/config` returns it. Pure.

Prometheus writes it itself, with two spaces for each level, without comments and unset values
(config/config.go String), and it may have megabytes of scrape configurations. So only the lines of
the section in question are read.
"""

import re
from collections.abc import Mapping

from prometheus_backup.prometheus.versions import RETENTION_SECTION_IS_COMPLETE, is_before

DEFAULT_RETENTION = "15d"
_NO_LIMIT = ("", "0", "0s", "0B")


def evaluation_interval(config: str) -> str:
    """Return the evaluation interval, which is also the step of subqueries without one."""
    return _values(config, "global").get("evaluation_interval", "")


def float_chunk_encoding(config: str) -> str:
    """Return the encoding of float chunks; "" if the configuration does not set it."""
    return _values(config, "storage", "tsdb", "chunk_encoding").get("floats", "")


def out_of_order_window(config: str) -> str | None:
    """Return how old out-of-order samples may be, as a PromQL duration; None if not accepted."""
    window = _values(config, "storage", "tsdb").get("out_of_order_time_window", "")
    return None if window in _NO_LIMIT else window


def configured_retention(config: str, flags: Mapping[str, object], *, version: str) -> str | None:
    """Return the retention of the configuration in the format of runtimeinfo; None if it has none.

    It counts instead of the flags. In 3.8 to 3.10 the flags fill in what it does not have
    (cmd/prometheus/main.go), and runtimeinfo does not follow a reload.
    """
    values = _values(config, "storage", "tsdb", "retention")
    if not values:
        return None
    if is_before(version, RETENTION_SECTION_IS_COMPLETE):
        for name in ("time", "size"):
            if values.get(name, "") in _NO_LIMIT:
                values[name] = str(flags.get(f"storage.tsdb.retention.{name}", ""))
        if all(values[name] in _NO_LIMIT for name in ("time", "size")):
            values["time"] = DEFAULT_RETENTION
    limits = [values.get("time", ""), values.get("size", "")]
    if values.get("percentage", "0") != "0":
        limits.append(f"{values['percentage']}%")
    return " or ".join(limit for limit in limits if limit not in _NO_LIMIT)


def _values(config: str, *path: str) -> dict[str, str]:
    """Return the plain values of a section, by name; empty if there is no such section."""
    for level, name in enumerate(path):
        indent = "  " * level
        found = re.search(rf"^{indent}{name}:\n((?:{indent}  .*\n?)+)", config, re.MULTILINE)
        if found is None:
            return {}
        config = found[1]
    indent = "  " * len(path)
    return dict(re.findall(rf"^{indent}(\w+): (\S+)$", config, re.MULTILINE))
