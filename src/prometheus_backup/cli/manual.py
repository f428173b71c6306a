"""Examples and exit codes of each command: for `--help`, the man pages and docs/exit-codes.md."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A command line without the program's name, and what it is for."""

    purpose: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Manual:
    """What a command's help adds to its options. `exits` maps exit codes to their meaning."""

    examples: tuple[Example, ...]
    exits: Mapping[str, str]


_READS_REPOSITORY = {"10 to 14": "The repository could not be read."}
COMMON_EXITS = {
    "1": "A bug. Please report it with the traceback.",
    "2": "Arguments or settings cannot be used. Nothing was done.",
    "130, 143": "Stopped by a signal, after cleaning up.",
}
"""Exit codes that every command has."""

MANUAL: Mapping[str, Manual] = {
    "backup": Manual(
        (
            Example("Back up to S3.", "backup --s3-bucket health-tracker-prometheus-backups"),
            Example(
                "Back up to a local directory, with labels.",
                "backup --repository file:///srv/backups --label cluster=production",
            ),
            Example(
                "Limit the bandwidth, and check every block.",
                "backup --max-bandwidth 50MB --verify-level tsdb",
            ),
        ),
        {
            "0": "The backup is committed and verified, retention was applied, and the snapshot "
            "is removed.",
            "3": "The backup is committed, but it is degraded, a snapshot could not be removed, "
            "or retention could not be applied or not judge all backups.",
            "10 to 14": "The repository cannot be used. Nothing was committed.",
            "20 to 22": "Prometheus or its snapshot cannot be used. Nothing was committed.",
            "40": "Stored bytes differ from those sent. Nothing was committed.",
            "130, 143": "Stopped by a signal, after cleaning up. If the log contains `backup "
            "committed`, `list` shows the backup.",
        },
    ),
    "check": Manual(
        (
            Example("Check all settings before the first backup.", "check"),
            Example(
                "Check a local repository.", "check --repository file:///srv/prometheus-backups"
            ),
        ),
        {
            "0": "A backup would succeed.",
            "3": "A backup would be partly done, or monitoring would not receive its result.",
            "10 to 22": "The exit code that `backup` would have, from the first failed check.",
        },
    ),
    "daily": Manual(
        (
            Example("Back up every night at two o'clock (UTC).", "daily 02:00"),
            Example("Log JSON.", "daily 02:30 --log-format json"),
        ),
        {"130, 143": "Stopped by a signal. The log and the metrics have the results of backups."},
    ),
    "drill": Manual(
        (
            Example("Test the newest backup.", "drill latest"),
            Example("Restore only the last six hours of it.", "drill latest --from -6h"),
            Example("Use another disk for the restored data.", "drill latest --scratch /srv/drill"),
        ),
        {
            "0": "The drill passed.",
            "2": "The Prometheus binary, an argument or a setting cannot be used. Nothing is "
            "recorded.",
            "3": "The drill proved nothing: no fingerprints, no answer to compare, Prometheus not "
            "ready in time, or the store could not be read.",
            "10 to 14": "The repository could not be read. 11: another drill uses the scratch "
            "directory.",
            "30": "There is no such backup.",
            "33": "The scratch directory cannot be used or is too small. Nothing is recorded.",
            "41": "The drill found faults.",
        },
    ),
    "estimate": Manual(
        (
            Example("Estimate from the existing backups.", "estimate"),
            Example("Estimate before the first backup.", "estimate --tsdb-size 100GB"),
            Example(
                "Compare with a shorter retention.",
                "estimate --tsdb-size 100GB --retention-daily 14 --retention-monthly 6",
            ),
        ),
        {"0": "The estimate was printed.", **_READS_REPOSITORY},
    ),
    "heal": Manual(
        (
            Example("Find bad blocks, and show the planned repairs.", "heal /var/lib/prometheus"),
            Example("Repair them.", "heal /var/lib/prometheus --apply"),
            Example(
                "Only make Prometheus start again, as fast as possible.",
                "heal /var/lib/prometheus --quick --apply",
            ),
        ),
        {
            "0": "All blocks and the WAL are sound, or were healed.",
            "3": "With --apply: not everything could be healed. The output names the rest.",
            "10 to 14": "The repository could not be read, or, with 11, another run uses the data "
            "directory.",
            "33": "The data directory cannot be written, or is too full.",
            "41": "Without --apply: there is something to heal.",
        },
    ),
    "history": Manual(
        (
            Example("Show the blocks of the history.", "history"),
            Example(
                "Show what `forget` would erase.",
                "history forget --from 2025-03-01 --to 2025-03-02",
            ),
            Example(
                "Erase it, and do not wait 24 hours.",
                "history forget --from 2025-03-01 --to 2025-03-02 --apply --at-once",
            ),
        ),
        {
            "0": "The history was shown. With `forget --apply`: no backup and no block of the "
            "history has samples of the time range, except those that are deleted after a day.",
            "3": "With `forget`: nothing can be deleted. Also, with --apply: a kept backup, or a "
            "block that reaches beyond the time range, still has samples of it.",
            "10 to 14": "The repository cannot be used.",
        },
    ),
    "hold": Manual(
        (
            Example(
                "Keep a backup for an audit.",
                'hold 2025-01-01 --until 2030-12-31 --reason "audit of 2025"',
            ),
            Example("Keep it until it is released.", 'hold latest --reason "incident 4711"'),
        ),
        {
            "0": "The backup is held.",
            "3": "The backup is held, but a deletion of it had begun and may still be at work.",
            "10 to 14": "The repository cannot be used.",
            "30": "There is no such backup, or it has just been deleted.",
        },
    ),
    "inspect": Manual(
        (
            Example("Check all blocks of a data directory.", "inspect /var/lib/prometheus"),
            Example("Check one block.", "inspect /var/lib/prometheus/01JJ6M3T0W4G1M149V9Z4B36B8"),
        ),
        {
            "0": "Every block is sound.",
            "3": "There is no block, or one could not be read.",
            "41": "A block is corrupt.",
        },
    ),
    "job": Manual(
        (
            Example(
                "Show what a restore into the Prometheus of the backup would do.",
                "job restore latest --dry-run < cronjob.json",
            ),
            Example("Repair its data directory.", "job heal --apply < cronjob.json"),
            Example("Check the settings in the cluster.", "job check < cronjob.json"),
        ),
        {"0": "The Job was printed."},
    ),
    "list": Manual(
        (
            Example("List all backups.", "list"),
            Example("Show all columns.", "list --wide"),
            Example(
                "Find the best backup with samples of an instant.",
                "list --holding 2026-03-01T14:30:00Z --limit 1 --ids",
            ),
            Example(
                "List the backups of a year that are not good.",
                "list --since 2025-01-01 --until 2025-12-31 --state failed --state degraded",
            ),
            Example("Write JSON for scripts.", "list --json"),
        ),
        {
            "0": "The backups were listed.",
            "3": "Some backups could not be read. The output names them.",
            **_READS_REPOSITORY,
        },
    ),
    "metrics": Manual(
        (
            Example("Print the metrics.", "metrics"),
            Example("Serve them for Prometheus to scrape.", "metrics --listen 0.0.0.0:9879"),
            Example(
                "Serve those of several repositories.",
                "metrics --listen 0.0.0.0:9879 --repositories repositories.yaml",
            ),
        ),
        {
            "0": "The metrics were printed, or the exporter was stopped.",
            "3": "With --repositories: some could not be read.",
            **_READS_REPOSITORY,
        },
    ),
    "open": Manual(
        (
            Example(
                "Look at an hour of last March.",
                "open --from 2026-03-01T14:00:00Z --to 2026-03-01T15:00:00Z",
            ),
            Example("See what would be fetched, and whether it fits.", "open latest --dry-run"),
            Example("Use a fixed port, for `kubectl port-forward`.", "open latest --port 9090"),
        ),
        {
            "0": "The window was closed. With --dry-run: it would fit.",
            "2": "The Prometheus binary, an argument, a setting or the port cannot be used, or the "
            "backup has no block in the time range.",
            "3": "The window was closed, and some blocks were missing in it. The log names them.",
            "10 to 14": "The repository could not be read. 11: another window uses the scratch "
            "directory.",
            "20": "Prometheus did not start, or ended by itself.",
            "30": "There is no such backup.",
            "33": "The scratch directory cannot be used or is too small.",
            "40": "All blocks are damaged.",
            "130, 143": "Stopped by a signal before the window was open, after cleaning up.",
        },
    ),
    "prune": Manual(
        (
            Example("Show what retention would delete.", "prune --dry-run"),
            Example("Apply a shorter retention once.", "prune --retention-daily 7"),
            Example("Give up a lost backup.", "prune --forget backup-20250122-020000"),
        ),
        {
            "0": "Retention was applied. With --dry-run: the plan was printed.",
            "3": "Not everything could be judged or deleted.",
            "10 to 14": "The repository cannot be used.",
            "30": "With --forget: there is no such backup.",
        },
    ),
    "release": Manual(
        (
            Example("Show what retention would then do.", "release 2025-01-01 --dry-run"),
            Example("End the hold.", "release 2025-01-01"),
        ),
        {
            "0": "The backup is not held any more.",
            "10 to 14": "The repository cannot be used.",
            "30": "There is no such backup.",
        },
    ),
    "report": Manual(
        (
            Example("Write the page to a file.", "report --output report.html"),
            Example("Write it to standard output.", "report --output -"),
        ),
        {
            "0": "The page was written, whatever its verdict.",
            "3": "The page was written, but some backups could not be read. The output names them.",
            **_READS_REPOSITORY,
            "33": "The file cannot be written.",
        },
    ),
    "restore": Manual(
        (
            Example("Show what would be restored.", "restore latest /srv/restored --dry-run"),
            Example("Restore the newest backup.", "restore latest /srv/restored"),
            Example(
                "Add old blocks to a running Prometheus.",
                "restore latest /var/lib/prometheus --merge",
            ),
            Example(
                "Bring back series that were deleted by mistake on 1 May.",
                "restore latest /var/lib/prometheus --merge --undelete --at 2025-04-30",
            ),
        ),
        {
            "0": "All blocks are in place. With --dry-run: all can be restored.",
            "3": "Some blocks were left out. The output names them.",
            "10 to 14": "The repository could not be read, or, with 11, another run uses the "
            "target.",
            "20": "Prometheus does not answer as needed.",
            "30 to 33": "There is no such backup, the target is not empty, data would be lost, or "
            "the target cannot be written.",
            "40, 41": "The backup is damaged. Restored blocks are complete; run the same command "
            "again to resume.",
        },
    ),
    "show": Manual(
        (
            Example("Show the newest backup.", "show latest"),
            Example("Show one backup as JSON.", "show backup-20250122-020000 --json"),
        ),
        {
            "0": "The backup was shown.",
            **_READS_REPOSITORY,
            "30": "There is no such backup.",
            "41": "Its manifest cannot be read.",
        },
    ),
    "timeline": Manual(
        (
            Example("Show everything that can be recovered.", "timeline"),
            Example("Show one quarter.", "timeline --from 2026-01-01 --to 2026-04-01"),
        ),
        {"0": "The timeline was shown.", **_READS_REPOSITORY},
    ),
    "verify": Manual(
        (
            Example("Verify the newest backup.", "verify"),
            Example("Verify every block of it.", "verify latest --level tsdb"),
            Example(
                "Verify everything once in 30 nights, one part each night.",
                "verify --all --subset next/30",
            ),
        ),
        {
            "0": "Every backup passed.",
            "3": "Nothing failed, but something could not be read, or there was nothing to verify.",
            "10 to 14": "The repository could not be read. 11: another verification uses the "
            "scratch directory.",
            "30": "There is no such backup.",
            "33": "The scratch directory cannot be used.",
            "41": "A backup has faults.",
        },
    ),
    "version": Manual(
        (Example("Print the version.", "version"),),
        {"0": "The version was printed."},
    ),
}


def exits(name: str) -> dict[str, str]:
    """Return the exit codes of a command with their meaning, in order."""
    codes = {**COMMON_EXITS, **MANUAL[name].exits}
    return {code: codes[code] for code in sorted(codes, key=_first_code)}


def _first_code(codes: str) -> int:
    return int(codes.replace(",", " ").split()[0])
