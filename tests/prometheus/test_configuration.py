"""What is read from the configuration that Prometheus reports."""

import pytest

from prometheus_backup.prometheus.configuration import (
    configured_retention,
    evaluation_interval,
    float_chunk_encoding,
    out_of_order_window,
)

FLAGS = {"storage.tsdb.retention.time": "15d", "storage.tsdb.retention.size": "0B"}
BEFORE = """\
global:
  scrape_interval: 1m
  external_labels:
    retention: none
scrape_configs:
- job_name: node
  relabel_configs:
  - replacement: |
      storage:
        tsdb:
          retention:
            time: 1h
    retention:
      time: 2h
"""


def configuration(section: str) -> str:
    """Return a configuration of Prometheus with these lines in its retention section."""
    retention = f"    retention:\n      {section}\n" if section else ""
    storage = f"storage:\n  tsdb:\n    out_of_order_time_window: 1h\n{retention}"
    return f"{BEFORE}{storage}  exemplars:\n    max_exemplars: 100000\n"


@pytest.mark.parametrize(
    ("section", "version", "effective"),
    [
        ("", "3.5.3", None),
        ("time: 32d", "3.8.0", "32d"),
        ("time: 32d\n      size: 10GiB", "3.9.1", "32d or 10GiB"),
        ("size: 10GiB", "3.10.0", "15d or 10GiB"),
        ("size: 10GiB", "3.11.0", "10GiB"),
        ("percentage: 80", "3.14.0", "80%"),
        ("time: 7d\n      percentage: 12.5", "3.14.0", "7d or 12.5%"),
        ("time: 7d\n      size: 1GiB\n      percentage: 5", "3.14.0-rc.0", "7d or 1GiB or 5%"),
        ("time: 0s\n      size: 1GiB", "3.14.0", "1GiB"),
        ("time: 0s", "3.14.0", ""),
    ],
)
def test_retention_in_the_configuration_counts_instead_of_the_flags(
    section: str, version: str, effective: str | None
) -> None:
    assert configured_retention(configuration(section), FLAGS, version=version) == effective


@pytest.mark.parametrize(
    ("flags", "section", "effective"),
    [
        ({}, "size: 1GiB", "1GiB"),
        ({"storage.tsdb.retention.size": "50GiB"}, "time: 30d", "30d or 50GiB"),
        ({"storage.tsdb.retention.size": "50GiB"}, "size: 9GiB", "9GiB"),
        ({"storage.tsdb.retention.time": "0s"}, "time: 0s", "15d"),
    ],
)
def test_before_3_11_the_flags_fill_in_what_the_section_does_not_have(
    flags: dict[str, str], section: str, effective: str
) -> None:
    assert configured_retention(configuration(section), flags, version="3.10.0") == effective


@pytest.mark.parametrize("value", ["0s", "0"])
def test_an_out_of_order_window_of_zero_is_none(value: str) -> None:
    found = out_of_order_window(f"storage:\n  tsdb:\n    out_of_order_time_window: {value}\n")
    assert found is None


def test_the_out_of_order_window_is_next_to_the_retention() -> None:
    assert out_of_order_window(configuration("time: 3d")) == "1h"
    assert out_of_order_window(BEFORE) is None


def test_the_evaluation_interval_is_the_one_of_all_rules() -> None:
    assert (
        evaluation_interval("global:\n  scrape_interval: 1m\n  evaluation_interval: 15s\n") == "15s"
    )
    assert evaluation_interval("global: {}\n") == ""


def test_the_encoding_of_floats_is_next_to_the_retention() -> None:
    config = configuration("time: 3d").replace(
        "    retention:\n      time: 3d",
        "    chunk_encoding:\n      floats: xor2\n    retention:\n",
    )
    assert float_chunk_encoding(config) == "xor2"
    assert float_chunk_encoding(BEFORE) == ""
