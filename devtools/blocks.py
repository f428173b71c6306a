"""Creates real TSDB blocks for chosen times with promtool; the seed determines the samples."""

import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from devtools.processes import clean_environment

BLOCK_LENGTH = timedelta(hours=2)


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """The content of blocks: `series` series of one metric, with one sample every `step`.

    There are `blocks` consecutive blocks of two hours each, from `start` rounded down to a whole
    block.
    """

    start: datetime = datetime(2025, 1, 20, tzinfo=UTC)
    blocks: int = 4
    series: int = 20
    step: timedelta = timedelta(minutes=1)
    metric: str = "devtools_value"
    seed: int = 0

    @property
    def min_time(self) -> datetime:
        """The start of the first block, and the time of the first sample."""
        since_epoch = self.start - datetime(1970, 1, 1, tzinfo=UTC)
        return self.start - since_epoch % BLOCK_LENGTH

    @property
    def max_time(self) -> datetime:
        """The end of the last block, after the last sample."""
        return self.min_time + self.blocks * BLOCK_LENGTH


def write_openmetrics_blocks(
    data_dir: Path, promtool: Path, spec: BlockSpec | None = None
) -> list[Path]:
    """Add blocks to `data_dir`; return the new block directories in order of time."""
    spec = spec or BlockSpec()
    data_dir.mkdir(parents=True, exist_ok=True)
    before = set(data_dir.iterdir())
    text = data_dir.with_name(f"{data_dir.name}.openmetrics")
    with text.open("w") as output:
        output.writelines(_openmetrics(spec))
    done = subprocess.run(
        [
            str(promtool),
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            "--quiet",
            str(text),
            str(data_dir),
        ],
        env=clean_environment(data_dir.with_name(f"{data_dir.name}.home")),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    text.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"promtool ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    # ULIDs are created in order of time, so sorting by name sorts by time.
    new = sorted(path for path in set(data_dir.iterdir()) - before if (path / "index").is_file())
    if len(new) != spec.blocks:
        raise RuntimeError(f"promtool wrote {len(new)} blocks, not {spec.blocks}")
    return new


def _openmetrics(spec: BlockSpec) -> Iterator[str]:
    random_values = random.Random(spec.seed)
    levels = [random_values.uniform(0, 1000) for _ in range(spec.series)]
    yield f"# TYPE {spec.metric} gauge\n"
    at = spec.min_time
    while at < spec.max_time:
        seconds = f"{at.timestamp():.3f}"
        for number, level in enumerate(levels):
            value = level + random_values.gauss(0, 1)
            yield f'{spec.metric}{{series="{number}"}} {value} {seconds}\n'
        at += spec.step
    yield "# EOF\n"
