"""The table of settings: names, environment variables, flags and defaults.

The command line, the configuration file and docs/configuration.md are generated from it. A
new setting is one entry here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["text", "path", "flag", "integer", "bandwidth", "duration", "labels", "queries"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `name` is its key in the file; `env` is its main environment variable.

    `default_text` describes in help what an absent value means.
    """

    name: str
    env: str
    help: str
    kind: Kind = "text"
    default: Any = None
    default_text: str = ""
    also_env: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    """The allowed values; upper and lower case do not matter."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other spellings of choices."""
    flag: str = ""
    group: str = ""

    @property
    def option(self) -> str:
        """Return the flag."""
        return self.flag or "--" + self.name.replace("_", "-")


_PROMETHEUS = (
    Setting(
        "prometheus_url",
        "PROMETHEUS_URL",
        "URL of Prometheus; may include a path prefix.",
        default="http://localhost:9090",
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
        "File that contains the password.",
        kind="path",
        default_text="none",
    ),
    Setting(
        "prometheus_bearer_token_file",
        "PROMETHEUS_BEARER_TOKEN_FILE",
        "File that contains a bearer token.",
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
    Setting(
        "prometheus_cert_file",
        "PROMETHEUS_CERT_FILE",
        "Client certificate (PEM), if Prometheus requires one.",
        kind="path",
        default_text="none",
    ),
    Setting(
        "prometheus_key_file",
        "PROMETHEUS_KEY_FILE",
        "Key (PEM) of the client certificate, if it is in a file of its own.",
        kind="path",
        default_text="none",
    ),
)
_SOURCE = (
    Setting(
        "data_dir",
        "PROMETHEUS_DATA_DIR",
        "Prometheus data directory (its --storage.tsdb.path).",
        kind="path",
        default="/prometheus",
    ),
)
_REPOSITORY = (
    Setting(
        "repository",
        "REPOSITORY",
        "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///PATH.",
        default_text="s3://S3_BUCKET/S3_PREFIX",
    ),
    Setting("s3_bucket", "S3_BUCKET", "Bucket, if REPOSITORY is not set.", default_text="none"),
    Setting(
        "s3_prefix",
        "S3_PREFIX",
        "Prefix in the bucket, if REPOSITORY is not set.",
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
        "s3_checksum",
        "S3_CHECKSUM",
        "Checksum to send with uploads; `verify --level stored` compares it.",
        default="auto",
        default_text="crc64nvme on AWS, else none",
        choices=("auto", "crc64nvme", "sha256", "none"),
    ),
    Setting(
        "s3_tags",
        "S3_TAGS",
        "Tag the objects; switch it off for a store that refuses tags.",
        kind="flag",
        default=True,
    ),
    Setting(
        "s3_conditional_writes",
        "S3_CONDITIONAL_WRITES",
        "Create objects with If-None-Match; switch it off for a store that refuses it.",
        kind="flag",
        default=True,
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
        "Number of files to transfer in parallel. The default is for files of 1 MiB or more; it is "
        "16 for smaller ones.",
        kind="integer",
        default_text="based on the number of cores",
    ),
    Setting(
        "max_bandwidth",
        "MAX_BANDWIDTH",
        "Bandwidth limit for all transfers together, per second: 50MB (bytes) or 400Mbit (bits).",
        kind="bandwidth",
        default_text="unlimited",
    ),
)
_RETENTION = (
    Setting(
        "retention_daily",
        "RETENTION_DAILY",
        "Keep all backups of this many days; 0 disables the tier.",
        kind="integer",
        default=30,
    ),
    Setting(
        "retention_monthly",
        "RETENTION_MONTHLY",
        "Keep one backup per month for this many months; 0 disables the tier.",
        kind="integer",
        default=12,
    ),
    Setting(
        "retention_yearly",
        "RETENTION_YEARLY",
        "Keep one backup per year for this many years; 0 disables the tier.",
        kind="integer",
        default=3,
    ),
    Setting(
        "retention_all",
        "RETENTION_ALL",
        "Keep every backup this long, such as 48h, then the newest of each day.",
        kind="duration",
        default_text="as long as the daily tier",
    ),
    Setting(
        "retention_history",
        "RETENTION_HISTORY",
        "In layout archive, keep samples this long, such as 400d, also if no kept backup has them.",
        kind="duration",
        default_text="none",
    ),
)
_BACKUP = (
    Setting(
        "layout",
        "LAYOUT",
        "How new backups keep their blocks: each a whole copy, or each block once in an archive.",
        default="full",
        choices=("full", "archive"),
    ),
    Setting(
        "snapshot_mode",
        "SNAPSHOT_MODE",
        "Take a snapshot with the Admin API, or only the blocks on disk, without up to three hours "
        "in memory.",
        default="admin-api",
        choices=("admin-api", "blocks"),
    ),
    Setting(
        "skip_head",
        "SKIP_HEAD",
        "Skip samples that are only in memory (up to about three hours).",
        kind="flag",
        default=False,
    ),
    Setting(
        "verify_backup",
        "VERIFY_BACKUP",
        "Verify before the commit; otherwise the backup is marked `unverified`.",
        kind="flag",
        default=True,
    ),
    Setting(
        "verify_level",
        "VERIFY_LEVEL",
        "How thoroughly to verify before the commit.",
        default="checksum",
        choices=("size", "checksum", "tsdb"),
    ),
    Setting(
        "labels",
        "BACKUP_LABELS",
        "Labels that identify this Prometheus, as K=V,K=V or repeated; one source per repository.",
        kind="labels",
        flag="--label",
        default_text="none",
    ),
    Setting(
        "rehash",
        "REHASH",
        "Read and hash every file again instead of assuming that block files never change.",
        kind="flag",
        default=False,
    ),
    Setting(
        "allow_empty",
        "ALLOW_EMPTY",
        "Allow a backup that contains no blocks.",
        kind="flag",
        default=False,
    ),
    Setting(
        "fingerprints",
        "FINGERPRINTS",
        "Record the results of some queries, for `drill` to compare.",
        kind="flag",
        default=True,
    ),
    Setting(
        "fingerprint_queries",
        "FINGERPRINT_QUERY",
        "Additional PromQL query whose result to record; repeat the flag, or give one per line.",
        kind="queries",
        flag="--fingerprint-query",
        default_text="none",
    ),
    Setting(
        "fingerprint_file",
        "FINGERPRINT_FILE",
        "File of additional queries, one per line; `#` starts a comment.",
        kind="path",
        default_text="none",
    ),
)
_SCRATCH = (
    Setting(
        "scratch",
        "SCRATCH_DIR",
        "Directory for downloaded blocks: all of them for `drill` and `open`, a few for `verify`.",
        kind="path",
        default_text="the system's temporary directory",
        also_env=("DRILL_SCRATCH",),
    ),
)
_DRILL = (
    Setting(
        "prometheus_binary",
        "PROMETHEUS_BINARY",
        "Prometheus binary to start, preferably the version that was backed up.",
        kind="path",
        default="prometheus",
    ),
    Setting(
        "drill_wait",
        "DRILL_WAIT",
        "How long to wait for Prometheus to become ready, such as 90s or 30m.",
        kind="duration",
        flag="--wait",
        default="10m",
    ),
)
_MONITORING = (
    Setting(
        "backup_interval",
        "BACKUP_INTERVAL",
        "How often a backup is expected, such as 1d or 6h; used by alerts.",
        default="1d",
    ),
    Setting(
        "metrics_labels",
        "METRICS_LABELS",
        "Additional labels for every metric, as K=V,K=V or repeated.",
        kind="labels",
        flag="--metrics-label",
        default_text="none",
    ),
)
_ROTATION = (
    Setting(
        "verify_rotation",
        "VERIFY_ROTATION",
        "How long `verify` takes to read every backup once, such as 30d for `--subset next/30` "
        "every night; a backup that was not read for longer is stale.",
        kind="duration",
        default="30d",
    ),
)
_REPORTING = (
    Setting(
        "pushgateway_url",
        "PUSHGATEWAY_URL",
        "URL of a Pushgateway that receives the metrics of the run.",
        default_text="none",
    ),
    Setting(
        "metrics_textfile",
        "METRICS_TEXTFILE",
        "File for the metrics of the run, for node_exporter's textfile collector.",
        kind="path",
        default_text="none",
    ),
)
_HEALTHCHECK = (
    Setting(
        "healthcheck_url",
        "HEALTHCHECK_URL",
        "URL to ping when a backup succeeds, with /fail appended when it fails; never shown.",
        default_text="none",
    ),
)
_OUTPUT = (
    Setting(
        "log_level",
        "LOG_LEVEL",
        "Minimum level of the log lines to show.",
        default="info",
        choices=("debug", "info", "warning", "error"),
        aliases={"warn": "warning"},
    ),
    Setting(
        "log_format",
        "LOG_FORMAT",
        "Format of the log lines.",
        default="text",
        choices=("text", "json"),
    ),
    Setting("quiet", "QUIET", "Log errors only, and show no progress.", kind="flag", default=False),
)
GROUPS: Mapping[str, tuple[Setting, ...]] = {
    "prometheus": _PROMETHEUS,
    "source": _SOURCE,
    "repository": _REPOSITORY,
    "retention": _RETENTION,
    "backup": _BACKUP,
    "monitoring": _MONITORING,
    "rotation": _ROTATION,
    "reporting": _REPORTING,
    "healthcheck": _HEALTHCHECK,
    "scratch": _SCRATCH,
    "drill": _DRILL,
    "output": _OUTPUT,
}
SETTINGS: Mapping[str, Setting] = {s.name: s for group in GROUPS.values() for s in group}
