"""Settings: one table of names, environment variables, flags and defaults; reading a YAML file.

The command line, the configuration file and docs/configuration.md are made from this table, so
that they cannot disagree. Flags beat the environment, which beats the file, which beats defaults.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prometheus_backup.errors import UsageError

Kind = Literal["text", "path", "flag", "integer", "size", "labels"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `name` is the key in the file and of the value; `env` the first of its names.

    `default_text` says in help what an absent value means, where the default alone does not.
    """

    name: str
    env: str
    help: str
    kind: Kind = "text"
    default: Any = None
    default_text: str = ""
    also_env: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    flag: str = ""
    group: str = ""

    @property
    def option(self) -> str:
        """Return the flag."""
        return self.flag or "--" + self.name.replace("_", "-")


_SOURCE = (
    Setting(
        "prometheus_url",
        "PROMETHEUS_URL",
        "Where Prometheus answers; may carry a path prefix.",
        default="http://localhost:9090",
    ),
    Setting(
        "data_dir",
        "PROMETHEUS_DATA_DIR",
        "The data directory of that Prometheus (its --storage.tsdb.path).",
        kind="path",
        default="/prometheus",
    ),
    Setting(
        "prometheus_username",
        "PROMETHEUS_USERNAME",
        "User for basic authentication.",
        default_text="none",
    ),
    Setting(
        "prometheus_password_file",
        "PROMETHEUS_PASSWORD_FILE",
        "File that holds the password.",
        kind="path",
        default_text="none",
    ),
    Setting(
        "prometheus_bearer_token_file",
        "PROMETHEUS_BEARER_TOKEN_FILE",
        "File that holds a bearer token.",
        kind="path",
        default_text="none",
    ),
    Setting(
        "prometheus_ca_file",
        "PROMETHEUS_CA_FILE",
        "CA certificates (PEM) to trust for Prometheus.",
        kind="path",
        default_text="the system's",
    ),
)
_REPOSITORY = (
    Setting(
        "repository",
        "REPOSITORY",
        "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///PATH.",
        default_text="s3://S3_BUCKET/S3_PREFIX",
    ),
    Setting("s3_bucket", "S3_BUCKET", "Bucket, where REPOSITORY is not set.", default_text="none"),
    Setting(
        "s3_prefix",
        "S3_PREFIX",
        "Prefix in the bucket, where REPOSITORY is not set.",
        default_text="prometheus-snapshots",
    ),
    Setting(
        "s3_region",
        "S3_REGION",
        "Region of the bucket.",
        default="us-east-1",
        also_env=("AWS_REGION", "AWS_DEFAULT_REGION"),
    ),
    Setting(
        "s3_endpoint_url",
        "S3_ENDPOINT_URL",
        "Endpoint of an S3-compatible store.",
        default_text="AWS",
        also_env=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    ),
    Setting(
        "storage_class",
        "S3_STORAGE_CLASS",
        "Storage class of block files; the small control files are always STANDARD.",
        default="STANDARD",
    ),
    Setting(
        "sse",
        "S3_SSE",
        "Server-side encryption.",
        default="AES256",
        choices=("AES256", "aws:kms", "none"),
    ),
    Setting(
        "sse_kms_key_id", "S3_SSE_KMS_KEY_ID", "KMS key, with --sse aws:kms.", default_text="none"
    ),
    Setting(
        "s3_ca_bundle",
        "AWS_CA_BUNDLE",
        "CA certificates (PEM) to trust for the store.",
        kind="path",
        default_text="the system's",
    ),
    Setting(
        "concurrency",
        "CONCURRENCY",
        "Files moved at once.",
        kind="integer",
        default_text="chosen from the cores",
    ),
    Setting(
        "max_bandwidth",
        "MAX_BANDWIDTH",
        "Bytes a second over all workers, such as 50MB or 20MiB.",
        kind="size",
        default_text="unlimited",
    ),
)
_RETENTION = (
    Setting(
        "retention_daily",
        "RETENTION_DAILY",
        "Days to keep every backup; 0 turns the tier off.",
        kind="integer",
        default=30,
    ),
    Setting(
        "retention_monthly",
        "RETENTION_MONTHLY",
        "Months to keep a backup of each; 0 turns the tier off.",
        kind="integer",
        default=12,
    ),
    Setting(
        "retention_yearly",
        "RETENTION_YEARLY",
        "Years to keep a backup of each; 0 turns the tier off.",
        kind="integer",
        default=3,
    ),
)
_BACKUP = (
    Setting(
        "skip_head",
        "SKIP_HEAD",
        "Leave out what is only in memory yet (up to about three hours).",
        kind="flag",
        default=False,
    ),
    Setting(
        "verify_backup",
        "VERIFY_BACKUP",
        "Verify before the commit; without, the backup says `unverified`.",
        kind="flag",
        default=True,
    ),
    Setting(
        "verify_level",
        "VERIFY_LEVEL",
        "How thoroughly to verify before the commit.",
        default="checksum",
        choices=("size", "checksum"),
    ),
    Setting(
        "labels",
        "BACKUP_LABELS",
        "Labels of this Prometheus, as K=V,K=V or repeated; one source per repository.",
        kind="labels",
        flag="--label",
        default_text="none",
    ),
    Setting(
        "rehash",
        "REHASH",
        "Read every file again, instead of trusting that block files never change.",
        kind="flag",
        default=False,
    ),
    Setting(
        "allow_empty",
        "ALLOW_EMPTY",
        "Commit a backup without any block.",
        kind="flag",
        default=False,
    ),
)
_OUTPUT = (
    Setting(
        "log_level",
        "LOG_LEVEL",
        "Least important log lines to show.",
        default="info",
        choices=("debug", "info", "warning", "error"),
    ),
    Setting(
        "log_format",
        "LOG_FORMAT",
        "Form of the log lines.",
        default="text",
        choices=("text", "json"),
    ),
    Setting("quiet", "QUIET", "Log errors only, and show no progress.", kind="flag", default=False),
)
GROUPS: Mapping[str, tuple[Setting, ...]] = {
    "source": _SOURCE,
    "repository": _REPOSITORY,
    "retention": _RETENTION,
    "backup": _BACKUP,
    "output": _OUTPUT,
}
SETTINGS: Mapping[str, Setting] = {s.name: s for group in GROUPS.values() for s in group}

DEFAULT_PREFIX = "prometheus-snapshots"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?(?:/s|ps)?", re.IGNORECASE)
_UNITS = {"": 1, **{u: 1000**n for n, u in enumerate("kmgt", 1)}}
_UNITS |= {f"{u}i": 1024**n for n, u in enumerate("kmgt", 1)}
_SERVICE_LINK = re.compile(r"(tcp|udp)://[\d.]+:\d+")


def read_file(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; names as in the table or as environment variables.

    Raises UsageError for a file that cannot be read, is no mapping, or has an unknown name.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read configuration {path}: {error}") from None
    if document is None:  # empty, or comments only
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"cannot read configuration {path}: it is not a mapping of settings")
    return dict(_value(str(key), value, path) for key, value in document.items())


def parse_size(text: str) -> int:
    """Return bytes for `1000`, `50MB`, `20MiB` or `1GB/s`. Raises UsageError for other text."""
    match = _SIZE.fullmatch(text.strip())
    number = float(match[1]) * _UNITS[(match[2] or "").lower()] if match else 0
    if number < 1:
        raise UsageError(
            f"cannot read size {text!r}", hint="give bytes, with kB, MB, GB or KiB, MiB, GiB"
        )
    return int(number)


def parse_labels(texts: tuple[str, ...]) -> dict[str, str]:
    """Return labels from `K=V` texts, each of which may hold several, separated by commas."""
    labels = {}
    for part in (p.strip() for text in texts for p in text.split(",")):
        if not part:
            continue
        name, equals, value = part.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"cannot read label {part!r}", hint="give labels as NAME=VALUE")
        if not value.isprintable():
            raise UsageError(f"cannot use label {part!r}: it has characters that cannot be printed")
        labels[name] = value
    return labels


def repository_address(repository: str | None, *, bucket: str | None, prefix: str | None) -> str:
    """Return the repository's address from the setting, or from bucket and prefix.

    Raises UsageError where there is none, or both are given and differ.
    """
    built = f"s3://{bucket}/{(prefix or DEFAULT_PREFIX).strip('/')}" if bucket else None
    if not repository and not built:
        raise UsageError(
            "cannot tell where the repository is",
            hint="set S3_BUCKET, or REPOSITORY (such as s3://BUCKET/PREFIX or file:///PATH)",
        )
    if repository and built and repository.rstrip("/") != built:
        raise UsageError(
            f"cannot tell where the repository is: REPOSITORY is {repository}, S3_BUCKET and "
            f"S3_PREFIX name {built}",
            hint="set only one of them",
        )
    return repository or str(built)


def without_service_links(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what Kubernetes makes of Services of the same names.

    A Service called `repository` exports REPOSITORY=tcp://10.0.0.1:80 into every pod.
    """
    return {k: v for k, v in environment.items() if not _SERVICE_LINK.fullmatch(v)}


def _known(key: str, path: Path) -> str:
    by_any_name = {name: name for name in SETTINGS}
    for setting in SETTINGS.values():
        for alias in (setting.env, *setting.also_env, setting.option.lstrip("-")):
            by_any_name[alias.lower().replace("-", "_")] = setting.name
    name = by_any_name.get(key.lower().replace("-", "_"))
    if name is None:
        near = difflib.get_close_matches(key.lower(), by_any_name, n=1)
        hint = f"did you mean {near[0]}?" if near else "docs/configuration.md has them all"
        raise UsageError(f"cannot use configuration {path}: unknown setting {key!r}", hint=hint)
    return name


def _value(key: str, value: Any, path: Path) -> tuple[str, Any]:
    """Return a setting's name, and its value in the form that the command line would have."""
    name = _known(key, path)
    if SETTINGS[name].kind == "labels" and value is not None:
        if isinstance(value, dict):
            return name, [f"{k}={v}" for k, v in value.items()]
        return name, [str(v) for v in value] if isinstance(value, list) else [str(value)]
    if isinstance(value, (dict, list)):
        raise UsageError(f"cannot use configuration {path}: {key!r} must have one value")
    return name, value
