"""The table of settings, and how their values are parsed."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prometheus_backup.config import (
    parse_bandwidth,
    parse_instant,
    parse_labels,
    parse_queries,
    parse_size,
    read_file,
    repository_address,
    unknown_variables,
    without_service_links,
)
from prometheus_backup.errors import UsageError
from prometheus_backup.model import MAX_FINGERPRINTS, MAX_QUERY
from prometheus_backup.settings import GROUPS, SETTINGS


def test_names_variables_and_flags_are_unique() -> None:
    settings = [s for group in GROUPS.values() for s in group]
    names = [s.name for s in settings]
    variables = [v for s in settings for v in (s.env, *s.also_env)]
    flags = [s.option for s in settings]

    for texts in (names, variables, flags):
        assert len(set(texts)) == len(texts)
    assert {*SETTINGS} == {*names}
    assert all(re.fullmatch(r"[A-Z0-9_]+", variable) for variable in variables)
    assert all(s.help.endswith(".") for s in settings)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1000", 1000),
        ("1000B", 1000),
        ("50MB", 50_000_000),
        ("50mb", 50_000_000),
        ("50M", 50_000_000),
        ("20MiB", 20 * 1024**2),
        ("20Mi", 20 * 1024**2),
        ("1.5 kB", 1500),
        ("1GB", 1_000_000_000),
        ("2TiB", 2 * 1024**4),
        (" 3 KiB ", 3072),
    ],
)
def test_sizes_are_parsed_in_decimal_and_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "fast", "1XB", "MB", "1 000", "0.5", "1GB/s"])
def test_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read size"):
        parse_size(text)


NOW = datetime(2025, 1, 22, 2, tzinfo=UTC)


def test_bandwidth_is_parsed_in_bytes_and_bits() -> None:
    bytes_per_second = {"50MB": 50e6, "50 MB/s": 50e6, "50MBps": 50e6, "20MiB": 20 * 1024**2}
    bits_per_second = {"400Mbit": 50e6, "400mbit/s": 50e6, "400mbps": 50e6, "400 Mb/s": 50e6}

    for text, expected in (bytes_per_second | bits_per_second).items():
        assert parse_bandwidth(text) == expected, text


@pytest.mark.parametrize("text", ["50", "50M", "50mb", "50Mb", "0MB", "4bit", "fast", "-1MB", ""])
def test_bandwidth_without_a_clear_unit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read bandwidth"):
        parse_bandwidth(text)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2025-01-22", datetime(2025, 1, 22, tzinfo=UTC)),
        ("2025-01-22T02:00Z", NOW),
        ("2025-01-22T02:00:00", NOW),
        ("2025-01-22T03:00:00.5+01:00", NOW + timedelta(seconds=0.5)),
        (" -7d ", NOW - timedelta(days=7)),
        ("-90m", NOW - timedelta(minutes=90)),
    ],
)
def test_times_are_parsed_as_date_instant_or_age(text: str, instant: datetime) -> None:
    assert parse_instant(text, now=NOW) == instant


@pytest.mark.parametrize("text", ["", "7d", "-7", "-7 days", "yesterday", "2025-02-30", "-99999y"])
def test_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read time"):
        parse_instant(text, now=NOW)


def test_labels_are_parsed_from_one_text_or_several() -> None:
    assert parse_labels(("a=1,b=2", "c=x=y", "", "d=")) == {"a": "1", "b": "2", "c": "x=y", "d": ""}


@pytest.mark.parametrize("text", ["a", "=b", "1a=b", "a b=c", "a-b=c"])
def test_invalid_label_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot read label"):
        parse_labels((text,))


@pytest.mark.parametrize(
    ("repository", "bucket", "prefix", "address"),
    [
        ("file:///backups", None, None, "file:///backups"),
        (None, "b", None, "s3://b/prometheus-snapshots"),
        (None, "b", "", "s3://b/prometheus-snapshots"),
        (None, "b", "/a/b/", "s3://b/a/b"),
        ("", "b", "p", "s3://b/p"),
        ("s3://b/p/", "b", "p", "s3://b/p/"),
        ("gs://b/p", None, "p", "gs://b/p"),
    ],
)
def test_address_is_given_or_built_from_the_bucket(
    repository: str | None, bucket: str | None, prefix: str | None, address: str
) -> None:
    assert repository_address(repository, bucket=bucket, prefix=prefix) == address


@pytest.mark.parametrize(("repository", "bucket"), [(None, None), ("", None), ("", "")])
def test_missing_address_is_refused(repository: str | None, bucket: str | None) -> None:
    with pytest.raises(UsageError, match="cannot determine the repository"):
        repository_address(repository, bucket=bucket, prefix="p")


@pytest.mark.parametrize("repository", ["s3://other/p", "s3://b", "s3://b/q", "file:///b/p"])
def test_two_addresses_that_differ_are_refused(repository: str) -> None:
    with pytest.raises(UsageError, match="s3://b/p") as raised:
        repository_address(repository, bucket="b", prefix="p")
    assert repository in str(raised.value)


def test_only_kubernetes_service_links_are_dropped() -> None:
    environment = {
        "REPOSITORY": "tcp://10.0.0.1:80",
        "QUIET": "udp://10.0.0.1:53",
        "S3_BUCKET": "tcp",
        "PROMETHEUS_URL": "http://10.0.0.1:9090",
        "OTHER": "tcp://host:80",
        "RETENTION_DAILY": "$(RETENTION_DAILY)",
    }

    assert {*without_service_links(environment)} == {"S3_BUCKET", "PROMETHEUS_URL", "OTHER"}


def test_file_accepts_every_name_of_a_setting(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    for setting in SETTINGS.values():
        for key in (setting.name, setting.env, *setting.also_env, setting.option[2:]):
            file.write_text(f"{key}: 1\n")
            assert {*read_file(file)} == {setting.name}, key


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "{}\n"])
def test_an_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)

    assert read_file(file) == {}


@pytest.mark.parametrize("text", ["[]", "false", "0", "just words", "- a\n- b"])
def test_file_without_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)

    with pytest.raises(UsageError, match="not a mapping"):
        read_file(file)


def test_code_in_the_file_is_not_executed(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"s3_bucket: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")

    with pytest.raises(UsageError, match="cannot read configuration"):
        read_file(file)
    assert not (tmp_path / "made").exists()


def test_line_with_a_secret_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("s3_bucket: b\nhealthcheck_url: https://hc/xyzzyxyz: x\n")

    with pytest.raises(UsageError, match=r"not allowed here at line 2, column 37$") as raised:
        read_file(file)
    assert "xyzzy" not in raised.value.message


def test_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(b"s3_bucket: \xff\xfe\n")

    with pytest.raises(UsageError, match="cannot read configuration"):
        read_file(file)


@pytest.mark.parametrize(
    ("key", "near"),
    [("retention_dayly", "retention_daily"), ("s3_buket", "s3_bucket"), ("sse-kms-key", "kms")],
)
def test_unknown_setting_is_refused_with_a_suggestion(tmp_path: Path, key: str, near: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"{key}: 1\n")

    with pytest.raises(UsageError, match=f"unknown setting '{key}'") as raised:
        read_file(file)
    assert near in raised.value.hint


def test_queries_are_one_per_line_without_comments_and_duplicates() -> None:
    texts = ("count(up)", "# of interest\n\n  sum(up)\ncount(up)\r\nup # to its end\n")
    assert parse_queries(texts) == ("count(up)", "sum(up)", "up # to its end")


@pytest.mark.parametrize(
    "texts",
    [("x" * (MAX_QUERY + 1),), ("up\x1b[2J",), [f"up{n}" for n in range(MAX_FINGERPRINTS + 1)]],
)
def test_queries_that_do_not_fit_a_manifest_are_refused(texts: Sequence[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_queries(texts)
    assert str(caught.value).isprintable()
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "retention_daily: 30\nretention_daily: 90\n",
        "retention_daily: 30\nretention_daily: 30\n",
        "retention_daily: 30\nRETENTION_DAILY: 90\n",
        "retention-daily: 30\nretention_daily: 90\n",
        "{retention_daily: 30, retention_daily: 90}",
        "s3_region: eu-1\nAWS_REGION: eu-2\n",
        "labels: {cluster: a, cluster: b}",
    ],
)
def test_a_setting_given_twice_in_the_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)

    with pytest.raises(UsageError, match=r"in line 1 and .* are the same setting"):
        read_file(file)


@pytest.mark.parametrize("text", ["[" * 20_000, "? {a: b}\n: 3"])
def test_a_file_that_yaml_cannot_hold_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)

    with pytest.raises(UsageError) as raised:
        read_file(file)
    assert "\n" not in raised.value.message


def test_a_label_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="cluster is 'a' already"):
        parse_labels(("cluster=a", "cluster=b"))
    assert parse_labels(("cluster=a", "cluster=a")) == {"cluster": "a"}


def test_variables_that_only_look_like_settings_are_found() -> None:
    found = unknown_variables(
        ["RETENTION_DAILLY", "retention_daily", "LOGLEVEL", "S3_ACCESS_KEY", "RETENTION_POLICIES"]
    )
    assert found == {
        "RETENTION_DAILLY": "RETENTION_DAILY",
        "retention_daily": "RETENTION_DAILY",
        "LOGLEVEL": "LOG_LEVEL",
        "S3_ACCESS_KEY": None,
        "RETENTION_POLICIES": None,
    }


def test_variables_of_other_programs_are_not_taken_for_settings() -> None:
    """Those of Kubernetes' Services are set in every pod."""
    known = [v for s in SETTINGS.values() for v in (s.env, *s.also_env)]
    others = ["PATH", "HOSTNAME", "AWS_PROFILE", "AWS_ACCESS_KEY_ID", "GITHUB_REPOSITORY"]
    services = ["S3_SERVICE_HOST", "S3_PORT_9000_TCP_ADDR", "PROMETHEUS_PORT"]
    assert unknown_variables([*known, *others, *services, "PROMETHEUS_BACKUP_CONFIG"]) == {}
