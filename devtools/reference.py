"""Writes the parts of docs/ that repeat what the code says: `python -m devtools.reference`.

docs/configuration.md from the table of settings, the table in docs/exit-codes.md from the classes
of errors, and that in docs/how-to/monitoring.md from the table of metrics. tests/docs/ fails where
they are not up to date.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from prometheus_backup import errors
from prometheus_backup.cli.commands import commands
from prometheus_backup.metrics.families import EXPORTER, RUN, STATE
from prometheus_backup.model import Outcome
from prometheus_backup.settings import GROUPS, Setting

DOCS = Path(__file__).parent.parent / "docs"
CONFIGURATION = DOCS / "configuration.md"
EXIT_CODES = DOCS / "exit-codes.md"
MONITORING = DOCS / "how-to" / "monitoring.md"

_TABLE = re.compile(
    r"(?<=<!-- table: made by devtools\.reference -->\n).*?(?=<!-- end -->)", re.DOTALL
)

_HEAD = """\
# Configuration

<!-- Made by `python -m devtools.reference` from src/prometheus_backup/settings.py. -->

Every setting can be given in three ways. A flag beats the environment, the environment beats the
configuration file, and the file beats the default. `prometheus-backup COMMAND --help` shows the
same as this page.

- **Flags** belong to commands: each group below names the commands that take it. Flags without a
  value have an opposite, such as `--no-verify-backup`.
- **Environment**: a variable that is set but empty counts as not set. For yes or no, `true`,
  `1`, `yes` and `on`, or `false`, `0`, `no` and `off` are understood.
- **File**: YAML, named by `--config PATH` or `PROMETHEUS_BACKUP_CONFIG`. Keys are those of the
  tables; the names of variables and flags are understood, too. An unknown key is an error.

```yaml
# prometheus-backup.yaml
prometheus_url: http://localhost:9090
data_dir: /prometheus
s3_bucket: health-tracker-prometheus-backups
s3_region: eu-central-1
retention_daily: 30
retention_monthly: 12
retention_yearly: 3
labels:
  cluster: production
  replica: prometheus-0
max_bandwidth: 50MB
```

Every command also takes `--json` (see [json.md](json.md)) and `--help`.

Secrets are not settings: passwords and tokens of Prometheus are read from files, at each run, and
the credentials of the store come from where its own tools have them ([stores.md](stores.md)). Two
settings may hold one, because their services want it so: `HEALTHCHECK_URL`, and a `PUSHGATEWAY_URL`
with a user in it. No message and no log has them.

"""

_INTRODUCTIONS = {
    "prometheus": ("Prometheus", "The Prometheus that is backed up, or restored into."),
    "source": ("Data directory", "Where the Prometheus that is backed up stores its data."),
    "repository": (
        "Repository",
        (
            "Where backups are kept. Set `REPOSITORY`, or `S3_BUCKET` and `S3_PREFIX`; if both are "
            "given and differ, the program refuses to guess (exit 2). The `S3_*` settings, classes "
            "and encryption apply to `s3://` only."
        ),
    ),
    "retention": (
        "Retention",
        "See [retention.md](retention.md). All three at 0 is refused.",
    ),
    "backup": (
        "Backup",
        (
            "Several labels in one value are separated by commas. A repository takes the backups "
            "of one Prometheus: a run whose labels differ from those of the newest backup is "
            "refused (exit 2). Fingerprints: [how-to/restore-drill.md](how-to/restore-drill.md)."
        ),
    ),
    "scratch": (
        "Scratch directory",
        (
            "Where `drill` restores a backup, and where `verify --level tsdb` checks blocks: "
            "[explanation/verification.md](explanation/verification.md#blocks-of-stored-backups)."
        ),
    ),
    "drill": (
        "Drill",
        (
            "See [how-to/restore-drill.md](how-to/restore-drill.md). A program without a slash in "
            "its name is looked for on the `PATH`."
        ),
    ),
    "monitoring": (
        "Monitoring",
        "What metrics say besides what is known: [how-to/monitoring.md](how-to/monitoring.md).",
    ),
    "reporting": (
        "Reporting",
        (
            "Where a run tells how it ended: [how-to/monitoring.md](how-to/monitoring.md). What "
            "goes wrong there is a warning, and never changes how the run ends."
        ),
    ),
    "healthcheck": (
        "Dead man's switch",
        (
            "A service outside, which raises the alarm when it has not heard of a success for too "
            "long: [how-to/monitoring.md](how-to/monitoring.md#a-dead-mans-switch)."
        ),
    ),
    "output": (
        "Output",
        (
            "On a terminal, progress is drawn instead of log lines; elsewhere, or with "
            "`--log-format json`, log lines go to standard error."
        ),
    ),
}

_TAIL = """\
## In Kubernetes

Kubernetes sets a variable for every Service in the namespace. A Service called `repository` gives
every pod `REPOSITORY=tcp://10.0.0.1:80`, which is no setting of ours: values of that form are left
out.
"""


def configuration() -> str:
    """Return the content of docs/configuration.md."""
    parts = [_HEAD]
    for group, settings in GROUPS.items():
        title, introduction = _INTRODUCTIONS[group]
        takers = ", ".join(f"`{name}`" for name in _commands_with(settings[0]))
        parts.append(f"## {title}\n\n{_wrapped(introduction)}\n\nTaken by: {takers}.\n\n")
        parts.append("| environment | flag | file | default | |\n| --- | --- | --- | --- | --- |\n")
        parts += [f"{_row(setting)}\n" for setting in settings]
        parts.append("\n")
    return "".join(parts) + _TAIL


def exit_codes(document: str) -> str:
    """Return docs/exit-codes.md with its table made anew."""
    rows = "".join(f"| {code} | {name} | {text} |\n" for code, name, text in _exits())
    return _with_table(
        document, f"| exit | `kind` in JSON | meaning |\n| --- | --- | --- |\n{rows}"
    )


def monitoring(document: str) -> str:
    """Return docs/how-to/monitoring.md with its table made anew."""
    parts = []
    for family in (*STATE, *EXPORTER, *RUN):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        parts.append(f"| `{family.name}` | {labels} | {family.help} |\n")
    return _with_table(document, f"| metric | labels | |\n| --- | --- | --- |\n{''.join(parts)}")


def _with_table(document: str, table: str) -> str:
    made, count = _TABLE.subn(lambda _: table, document)
    if count != 1:
        raise ValueError(f"the page has {count} places for the table, not one")
    return made


def _commands_with(setting: Setting) -> list[str]:
    return sorted(
        name
        for name, command in commands.commands.items()
        if any(setting.option in parameter.opts for parameter in command.params)
    )


def _row(setting: Setting) -> str:
    names = ", ".join(f"`{name}`" for name in (setting.env, *setting.also_env))
    option = _command_option(setting)
    flag = f"`{setting.option}`"
    if option.secondary_opts:
        flag += f", `{option.secondary_opts[0]}`"
    text = setting.help
    if setting.choices:
        text += f" One of {', '.join(f'`{choice}`' for choice in setting.choices)}."
    default = setting.default_text or f"`{_plain(setting.default)}`"
    return f"| {names} | {flag} | `{setting.name}` | {default} | {text} |"


def _command_option(setting: Setting) -> click.Parameter:
    command = commands.commands[_commands_with(setting)[0]]
    return next(p for p in command.params if setting.option in p.opts)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _exits() -> Iterator[tuple[int, str, str]]:
    """Yield exit code, name and meaning, in the order of codes, of all that a run can end with."""
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.BackupToolError)
    ]
    groups = {base for error in classes for base in error.__bases__}
    found = [
        (error.exit_code, f"`{error.__name__}`", inspect.cleandoc(error.__doc__ or ""))
        for error in classes
        if error not in groups
    ]
    found += [
        (Outcome.DONE.exit_code, "", "Done."),
        (1, "", "A bug. The traceback says where; please report it."),
        (Outcome.PARTIAL.exit_code, "", "Done in part, degraded, or it could not look."),
        (Outcome.FAULTY.exit_code, "", "Verification found faults."),
    ]
    yield from sorted(found)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=100, break_on_hyphens=False)


def main() -> None:
    """Write the files."""
    CONFIGURATION.write_text(configuration())
    EXIT_CODES.write_text(exit_codes(EXIT_CODES.read_text()))
    MONITORING.write_text(monitoring(MONITORING.read_text()))


if __name__ == "__main__":
    main()
