"""Generates a Prometheus data directory of valid, incompressible TSDB blocks.

Decides the number of blocks, their time ranges and sizes; `tsdb_writer.py` writes them.
Run as `python -m bench.generate DIR [--size MIB] [--seed N]`.
"""

import argparse
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.tsdb_writer import (
    SAMPLES_PER_CHUNK,
    BlockSpec,
    Labels,
    RandomChunks,
    write_block,
)

BLOCK_HOURS = (54, 54, 54, 54, 54, 18, 18, 18, 6, 6, 2, 2)
"""Lengths, oldest first: two weeks of 2 h blocks after three levels of compaction."""

STEP = timedelta(minutes=1)
SEGMENT_BYTES = 128 << 20
"""Prometheus uses 512 MiB; smaller here, so that a block of 160 MiB has several segments."""

MIB = 1 << 20
_LEVELS = {2: 1, 6: 2, 18: 3, 54: 4}


def generate(data_dir: Path, size_bytes: int, *, newest: datetime, seed: int = 1) -> list[Path]:
    """Write blocks of at least `size_bytes` that end before `newest`; return their directories.

    The newest block ends at the last even hour that is at least two hours before `newest`, so
    that a Prometheus started on the directory accepts current samples.
    """
    rng = random.Random(seed)
    series = _series(_series_count(size_bytes, newest))
    two_hours_ms = _milliseconds(timedelta(hours=2))
    end_ms = (int(newest.timestamp() * 1000) // two_hours_ms - 1) * two_hours_ms
    start_ms = end_ms - _milliseconds(timedelta(hours=sum(BLOCK_HOURS)))
    blocks = []
    for hours in BLOCK_HOURS:
        spec = BlockSpec(
            min_time_ms=start_ms,
            max_time_ms=start_ms + _milliseconds(timedelta(hours=hours)),
            step_ms=_milliseconds(STEP),
            level=_LEVELS[hours],
            segment_bytes=SEGMENT_BYTES,
        )
        blocks.append(write_block(data_dir, spec, series, rng))
        start_ms = spec.max_time_ms
    return blocks


def directory_bytes(path: Path) -> int:
    """Return the sum of the sizes of all files under `path`."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _series_count(size_bytes: int, newest: datetime) -> int:
    """Return how many series are needed for the chunks alone to reach the size."""
    chunk = RandomChunks(random.Random(0), _milliseconds(STEP))
    chunk_bytes = len(chunk.framed(int(newest.timestamp() * 1000)))
    hours_per_chunk = STEP * SAMPLES_PER_CHUNK / timedelta(hours=1)
    per_series = chunk_bytes * sum(BLOCK_HOURS) / hours_per_chunk
    return max(1, int(-(-size_bytes // per_series)))


def _series(count: int) -> list[Labels]:
    """Return label sets, sorted as the index requires."""
    return sorted(
        (
            ("__name__", f"bench_metric_{number % 97:03d}_total"),
            ("instance", f"node-{number % 211:04d}.example:9100"),
            ("job", "bench"),
            ("series", f"{number:08d}"),
        )
        for number in range(count)
    )


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def main() -> None:
    """Command line of the generator."""
    parser = argparse.ArgumentParser(prog="python -m bench.generate", description=__doc__)
    parser.add_argument("directory", type=Path, help="data directory to write blocks into")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="default: 1024")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.perf_counter()
    blocks = generate(
        arguments.directory, arguments.size * MIB, newest=datetime.now(UTC), seed=arguments.seed
    )
    size = sum(directory_bytes(block) for block in blocks)
    seconds = time.perf_counter() - started
    print(f"{len(blocks)} blocks, {size / MIB:.0f} MiB in {seconds:.1f} s: {arguments.directory}")


if __name__ == "__main__":
    main()
