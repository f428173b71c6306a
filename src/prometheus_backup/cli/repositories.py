"""The file with the repositories that one exporter serves."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.store import address
from prometheus_backup.errors import UsageError

_EXAMPLE = "docs/how-to/fleet.md has an example"


class _Entry(BaseModel):
    """One repository, and the settings in which it differs from the others."""

    model_config = ConfigDict(extra="forbid", strict=True)

    repository: str
    labels: dict[str, str] = Field(default_factory=dict)
    backup_interval: str | None = None
    retention_daily: int | None = Field(default=None, ge=0)
    retention_monthly: int | None = Field(default=None, ge=0)
    retention_yearly: int | None = Field(default=None, ge=0)
    retention_all: str | None = None
    retention_history: str | None = None
    s3_region: str | None = None
    s3_endpoint_url: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    repositories: list[_Entry] = Field(min_length=1)


def repository_contexts(context: CommandContext, path: Path) -> list[CommandContext]:
    """Return a context for each repository in a file: the settings, with those of the file.

    Raises UsageError for a file that cannot be used, or that names a repository twice.
    """
    from prometheus_backup.stores.location import parse_location

    contexts: dict[str, CommandContext] = {}
    for number, entry in enumerate(_read(path).repositories, 1):
        try:
            own = replace(context, values={**context.values, **_values(context.values, entry)})
            location = str(parse_location(address(own.values)))
            own.metrics_labels()
            own.policy()
            _ = own.interval
        except UsageError as error:
            raise UsageError(
                f"cannot use entry {number} of {path}: {error.message}", hint=error.hint
            ) from None
        if location in contexts:
            raise UsageError(
                f"cannot use {path}: it names {location} twice",
                hint="a repository belongs to one Prometheus: name it once",
            )
        contexts[location] = own
    return [*contexts.values()]


def _values(common: Mapping[str, Any], entry: _Entry) -> dict[str, Any]:
    given = entry.model_dump(exclude_none=True, exclude={"labels"})
    names = entry.labels.keys()
    kept = [
        part
        for text in common["metrics_labels"]
        for part in text.split(",")
        if part.partition("=")[0].strip() not in names
    ]
    labels = (*kept, *(f"{name}={value}" for name, value in entry.labels.items()))
    return {**given, "s3_bucket": None, "s3_prefix": None, "metrics_labels": labels}


def _read(path: Path) -> _File:
    import yaml

    try:
        return _File.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        cause = error.strerror or str(error)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        cause = f"{where or 'the file'}: {first['msg'].lower()}"
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        cause = " ".join(str(error).split())
    raise UsageError(f"cannot read repositories {path}: {cause}", hint=_EXAMPLE)
