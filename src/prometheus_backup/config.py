"""Read settings: the YAML file, sizes, labels, the repository address.

Flags take precedence over the environment, then the file, then the defaults.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_backup.errors import UsageError
from prometheus_backup.model import MAX_FINGERPRINTS, MAX_PARTS, MAX_QUERY, Subset
from prometheus_backup.prometheus.promql import parse_duration
from prometheus_backup.settings import SETTINGS

DEFAULT_PREFIX = "prometheus-snapshots"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE)
_BANDWIDTH = re.compile(
    r"(\d+(?:\.\d+)?)\s*((?i:[kmgt]i?)?)\s*(?:(B|(?i:bytes?))(?i:/s|ps)?|(?i:bits?(?:/s|ps)?|bps)|b/s)"
)
"""A number, a prefix, and `B` for bytes (the only group of its own) or `bit` for bits."""
_UNITS = {"": 1, **{u: 1000**n for n, u in enumerate("kmgt", 1)}}
_UNITS |= {f"{u}i": 1024**n for n, u in enumerate("kmgt", 1)}
_SUBSET = re.compile(r"(next|\d{1,9})/(\d{1,9})")
_SERVICE_VARIABLE = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_(TCP|UDP)(_\w+)?)?$")
"""Variables that Kubernetes sets for a Service: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables"""
_OUR_PREFIXES = ("RETENTION_", "FINGERPRINT_", "S3_")
_OTHER_VARIABLES = {"PROMETHEUS_BACKUP_CONFIG"}
_SERVICE_LINK = re.compile(r"(tcp|udp)://[\d.]+:\d+")


def read_file(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; names as in the table or as environment variables.

    Raises UsageError for a file that cannot be read, is not a mapping, has an unknown name, or
    has a setting twice, even in two spellings.
    """
    import yaml

    try:
        text = path.read_text()
        document = yaml.safe_load(text)
        tree: Any = yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise UsageError(f"cannot read configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"cannot read configuration {path}: {_cause(error)}") from None
    if document is None:  # empty, or comments only
        return {}
    if not isinstance(document, dict):
        raise UsageError(f"cannot read configuration {path}: it is not a mapping of settings")
    _require_each_once(tree, path, name=lambda key: _known(key, path))
    for _, value in tree.value:
        if isinstance(value, yaml.MappingNode):
            _require_each_once(value, path, name=str)
    return dict(_value(str(key), value, path) for key, value in document.items())


def _cause(error: Exception) -> str:
    """Return what is wrong with a file, without the line itself, which may contain a secret."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "invalid YAML"
    problem = getattr(error, "problem", None) or "invalid YAML"
    return f"{problem} at line {mark.line + 1}, column {mark.column + 1}"


def parse_size(text: str) -> int:
    """Return bytes for `1000`, `50MB` or `20MiB`. Raises UsageError for other text."""
    match = _SIZE.fullmatch(text.strip())
    number = float(match[1]) * _UNITS[(match[2] or "").lower()] if match else 0
    if number < 1:
        raise UsageError(
            f"cannot read size {text!r}", hint="give bytes, with kB, MB, GB or KiB, MiB, GiB"
        )
    return int(number)


def parse_bandwidth(text: str) -> int:
    """Return bytes per second for `50MB`, `20MiB/s`, `400Mbit` or `400mbps`. Raises UsageError.

    A unit is required: without one, or with a lone `b`, bits and bytes cannot be told apart.
    """
    match = _BANDWIDTH.fullmatch(text.strip())
    number = float(match[1]) * _UNITS[match[2].lower()] / (1 if match[3] else 8) if match else 0
    if number < 1:
        raise UsageError(
            f"cannot read bandwidth {text!r}",
            hint="give bytes per second with kB, MB, GB, KiB, MiB or GiB, or bits per second with "
            "kbit, Mbit or Gbit, such as 50MB or 400Mbit",
        )
    return int(number)


def parse_instant(text: str, *, now: datetime) -> datetime:
    """Return the instant of `2025-01-22T02:00:00Z`, `2025-01-22` or `-7d` (that long before `now`).

    A time without a time zone is UTC. Raises UsageError for other text.
    """
    try:
        sign, ago = text.strip()[:1], parse_duration(text.strip()[1:])
        if sign == "-" and ago is not None:
            return now - ago
        instant = datetime.fromisoformat(text.strip())
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"cannot read time {text!r}",
            hint="give a date (2025-01-22), a time (2025-01-22T02:00:00Z), or how long ago (-7d)",
        ) from None


def parse_period(text: str) -> timedelta:
    """Return the duration of `30m`, `6h`, `1d` or `1w`. Raises UsageError for other text."""
    period = parse_duration(text)
    if not period:
        raise UsageError(
            f"cannot read duration {text!r}", hint="give it as 30m, 6h, 1d or 1w, above 0"
        )
    return period


def parse_subset(text: str | None) -> Subset | None:
    """Return the subset that `3/7` or `next/7` selects; None without text. Raises UsageError."""
    if text is None:
        return None
    match = _SUBSET.fullmatch(text.strip())
    part = None if match is None or match[1] == "next" else int(match[1])
    parts = int(match[2]) if match else 0
    if not 1 <= parts <= MAX_PARTS or (part is not None and not 1 <= part <= parts):
        raise UsageError(
            f"cannot verify subset {text!r}",
            hint=f"give N/T, such as 3/7, or next/7; T is {MAX_PARTS:,} at most",
        )
    return Subset(part, parts)


def parse_labels(texts: tuple[str, ...]) -> dict[str, str]:
    """Return the labels in `K=V` texts; one text may contain several, separated by commas."""
    labels: dict[str, str] = {}
    for part in (p.strip() for text in texts for p in text.split(",")):
        if not part:
            continue
        name, equals, value = part.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"cannot read label {part!r}", hint="give labels as NAME=VALUE")
        if not value.isprintable():
            raise UsageError(f"cannot use label {part!r}: it has characters that cannot be printed")
        if labels.setdefault(name, value) != value:
            raise UsageError(
                f"cannot use label {part!r}: {name} is {labels[name]!r} already",
                hint="give each label once",
            )
    return labels


def parse_queries(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the PromQL queries in these texts: one per line, without empty lines and `#` comments.

    Raises UsageError for one that cannot be kept in a manifest.
    """
    lines = (line.strip() for text in texts for line in text.splitlines())
    queries = tuple(dict.fromkeys(q for q in lines if q and not q.startswith("#")))
    for query in queries:
        if not query.isprintable() or len(query) > MAX_QUERY:
            raise UsageError(
                f"cannot use fingerprint query {query[:80]!r}: it is too long, or has characters "
                "that cannot be printed",
                hint=f"give {MAX_QUERY:,} characters at most, without tabs",
            )
    if len(queries) > MAX_FINGERPRINTS:
        raise UsageError(
            f"cannot use {len(queries)} fingerprint queries: the maximum is {MAX_FINGERPRINTS}",
            hint="a few queries over many series prove more than many small ones",
        )
    return queries


def repository_address(repository: str | None, *, bucket: str | None, prefix: str | None) -> str:
    """Return the repository's address from the setting, or from bucket and prefix.

    Raises UsageError if neither is given, or both are given and differ.
    """
    built = f"s3://{bucket}/{(prefix or DEFAULT_PREFIX).strip('/')}" if bucket else None
    if not repository and not built:
        raise UsageError(
            "cannot determine the repository: no address is set",
            hint="set S3_BUCKET, or REPOSITORY (such as s3://BUCKET/PREFIX or file:///PATH)",
        )
    if repository and built and repository.rstrip("/") != built:
        raise UsageError(
            f"cannot determine the repository: REPOSITORY is {repository}, but S3_BUCKET and "
            f"S3_PREFIX mean {built}",
            hint="set only one of them",
        )
    return repository or str(built)


def without_service_links(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables that Kubernetes sets, but nobody meant as settings.

    A Service called `repository` exports REPOSITORY=tcp://10.0.0.1:80 into every pod. The value
    `$(NAME)` of a manifest stays as it is if the ConfigMap has no NAME.
    """
    return {
        k: v for k, v in environment.items() if not _SERVICE_LINK.fullmatch(v) and v != f"$({k})"
    }


def unknown_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """Return the environment variables that look like a setting but are not one.

    The value is the setting's variable that was probably meant, if one is similar enough.
    """
    known = {e: e for s in SETTINGS.values() for e in (s.env, *s.also_env)}
    ours = [s.env for s in SETTINGS.values()]
    found: dict[str, str | None] = {}
    for name in sorted(environment):
        if name in known or name in _OTHER_VARIABLES or _SERVICE_VARIABLE.search(name):
            continue
        is_ours = name.upper().startswith(_OUR_PREFIXES)
        near = difflib.get_close_matches(name.upper(), ours, n=1, cutoff=0.75 if is_ours else 0.88)
        if near or is_ours:
            found[name] = near[0] if near else None
    return found


def _require_each_once(mapping: Any, path: Path, *, name: Callable[[str], str]) -> None:
    """Raise UsageError if a mapping of the file has two keys with the same name."""
    places: dict[str, str] = {}
    for key, _ in mapping.value:
        place = f"{key.value!r} in line {key.start_mark.line + 1}"
        first = places.get(name(str(key.value)))
        if first is not None:
            raise UsageError(
                f"cannot use configuration {path}: {first} and {place} are the same setting",
                hint="remove one of them",
            )
        places[name(str(key.value))] = place


def _known(key: str, path: Path) -> str:
    by_any_name = {name: name for name in SETTINGS}
    for setting in SETTINGS.values():
        for alias in (setting.env, *setting.also_env, setting.option.lstrip("-")):
            by_any_name[alias.lower().replace("-", "_")] = setting.name
    name = by_any_name.get(key.lower().replace("-", "_"))
    if name is None:
        near = difflib.get_close_matches(key.lower(), by_any_name, n=1)
        hint = f"did you mean {near[0]}?" if near else "docs/configuration.md lists all settings"
        raise UsageError(f"cannot use configuration {path}: unknown setting {key!r}", hint=hint)
    return name


def _value(key: str, value: Any, path: Path) -> tuple[str, Any]:
    """Return a setting's name, and its value in the form that the command line would have."""
    name = _known(key, path)
    kind = SETTINGS[name].kind
    if kind == "labels" and isinstance(value, dict):
        return name, [f"{k}={v}" for k, v in value.items()]
    if kind in ("labels", "queries") and value is not None and not isinstance(value, dict):
        return name, [str(v) for v in value] if isinstance(value, list) else [str(value)]
    if isinstance(value, (dict, list)):
        raise UsageError(f"cannot use configuration {path}: {key!r} must have one value")
    return name, value
