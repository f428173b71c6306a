"""Data directories for `heal` to repair, with a repository that has backups of their blocks."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from devtools.blocks import BlockSpec
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from tests.support.contents import tree
from tests.support.stored_backups import json_of, run_here

QUIET = PrometheusOptions(scrape_interval=None)
NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True)
class DamagedDirectory:
    """A data directory that tests damage; `repository` has backups of its blocks."""

    fleet: PrometheusFleet
    binaries: PrometheusBinaries
    data_dir: Path
    repository: Path
    sound: dict[str, bytes] = field(init=False)
    blocks: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Record its contents before it is damaged."""
        object.__setattr__(self, "sound", tree(self.data_dir))
        object.__setattr__(self, "blocks", tuple(sorted(self.data_dir.iterdir())))

    @property
    def block(self) -> Path:
        """The block that is damaged."""
        return self.blocks[1]

    @property
    def quarantine(self) -> Path:
        """Where bad blocks are moved to."""
        return self.data_dir / ".prometheus-backup" / "quarantine"

    def start(self, options: PrometheusOptions = QUIET) -> PrometheusServer:
        """Start Prometheus on it; raises ProcessFailedError if it does not start."""
        return self.fleet(self.binaries, self.data_dir, options)

    def heal(self, *options: str, url: str = NOBODY, code: int = 0) -> Any:
        """Run `heal` and return its JSON document. By default, Prometheus is not running."""
        command = ("heal", str(self.data_dir), f"--prometheus-url={url}", "--json", *options)
        env = {"REPOSITORY": f"file://{self.repository}"}
        return json_of(run_here(*command, env=env), code=code)

    def present(self, *, but: Collection[Path] = ()) -> bool:
        """Return whether all blocks, except `but`, are identical to the original."""
        names = {block.name for block in self.blocks} - {block.name for block in but}
        found = {p: body for p, body in tree(self.data_dir).items() if p.split("/")[0] in names}
        return found == {p: body for p, body in self.sound.items() if p.split("/")[0] in names}


def samples(server: PrometheusServer, spec: BlockSpec) -> list[Any]:
    """Return the count and the sum of the samples of each series, block by block."""
    span = (spec.max_time - spec.min_time) / spec.blocks
    window = f"[{int(span / timedelta(seconds=1)) - 1}s]"
    last = timedelta(milliseconds=1)  # excludes the next block's first sample
    return [
        server.query(f"{function}({spec.metric}{window})", spec.min_time + number * span - last)
        for number in range(1, spec.blocks + 1)
        for function in ("count_over_time", "sum_over_time")
    ]


def samples_of(
    folder: Path, binaries: PrometheusBinaries, blocks: Path, spec: BlockSpec
) -> list[Any]:
    """Return the `samples` of a Prometheus on a copy of these blocks."""
    shutil.copytree(blocks, folder)
    with PrometheusServer(binaries, folder, QUIET) as server:
        answers = samples(server, spec)
        server.kill()
    assert all(answers), "each block has samples"
    return answers


def only_bad(document: Any) -> Any:
    """Return the only bad block of a document."""
    (bad,) = document["bad"]
    return bad
