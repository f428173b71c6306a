"""Reads the apt sources of this machine: URI, components and keyring.

It reads both formats of sources.list(5), one-line and deb822. The result can be used for another
suite of the same archive.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APT = Path("/etc/apt")
# Names that apt sources may use instead of the suite's codename.
ALIASES = frozenset({"oldstable", "stable", "testing", "unstable", "sid"})
OS_RELEASE = Path("/etc/os-release")


@dataclass(frozen=True)
class Release:
    """The distribution of this machine: `debian` or `ubuntu`, and its codename."""

    family: str
    codename: str


@dataclass(frozen=True)
class AptSource:
    """One archive. `options` are in the one-line format, for example `signed-by=...`."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: tuple[str, ...]

    def line(self, suite: str) -> str:
        """Return the one-line source entry for `suite` of this archive."""
        options = f"[{' '.join(self.options)}] " if self.options else ""
        return f"deb {options}{self.uri} {suite} {' '.join(self.components)}"


def os_release(path: Path = OS_RELEASE) -> Release:
    """Return the distribution of this machine; a derivative counts as its parent distribution."""
    fields = dict(
        line.split("=", 1) for line in path.read_text().splitlines() if re.match(r"\w+=", line)
    )
    values = {name: value.strip("\"'") for name, value in fields.items()}
    ancestry = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    family = next((name for name in ancestry if name in {"ubuntu", "debian"}), ancestry[0])
    codename = values.get("UBUNTU_CODENAME") or values.get("VERSION_CODENAME", "")
    return Release(family=family, codename=codename)


def distribution_sources(codename: str, apt: Path = APT) -> list[AptSource]:
    """Return the archives that have this machine's suite, which excludes third-party archives.

    The components of an archive are merged, because Ubuntu may list them in separate entries.
    """
    archives: dict[tuple[str, tuple[str, ...]], dict[str, None]] = {}
    for source in _all_sources(apt):
        if {codename, *ALIASES} & set(source.suites):
            components = archives.setdefault((source.uri, source.options), {})
            components.update(dict.fromkeys(source.components))
    return [
        AptSource(uri=uri, suites=(codename,), components=tuple(components), options=options)
        for (uri, options), components in archives.items()
    ]


def _all_sources(apt: Path) -> Iterator[AptSource]:
    parts = apt / "sources.list.d"
    for listing in [apt / "sources.list", *sorted(parts.glob("*.list"))]:
        if listing.is_file():
            yield from _one_line_entries(listing.read_text())
    for listing in sorted(parts.glob("*.sources")):
        yield from _stanzas(listing.read_text())


def _one_line_entries(text: str) -> Iterator[AptSource]:
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        entry = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)$", line)
        if entry:
            options, uri, suite, components = entry.groups()
            yield AptSource(
                uri=uri,
                suites=(suite,),
                components=tuple(components.split()),
                options=tuple((options or "").split()),
            )


def _stanzas(text: str) -> Iterator[AptSource]:
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", uncommented):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled") == "no":
            continue
        # A one-line entry cannot contain an inline key; apt then tries its default keyring.
        keyrings = [word for word in fields.get("signed-by", "").split() if word.startswith("/")]
        options = [f"signed-by={','.join(keyrings)}"] if keyrings else []
        if "trusted" in fields:
            options.append(f"trusted={fields['trusted']}")
        for uri in fields.get("uris", "").split():
            yield AptSource(
                uri=uri,
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                options=tuple(options),
            )


def _fields(stanza: str) -> dict[str, str]:
    """Return the fields of a deb822 stanza: names in lower case, continuation lines joined."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields
