"""A fake Prometheus of any version that serves a real data directory."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_backup.model import ms_from_instant
from prometheus_backup.repository.layout import is_ulid
from tests.support.sources import FakePrometheus, Request


class ServingPrometheus(FakePrometheus):
    """Loads every block of its directory at once. Its head is empty unless `head_from` is given.

    `tsdb` are the lines of `storage.tsdb` in its configuration; its flags and its runtimeinfo say
    that it keeps `retention`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        version: str,
        tsdb: str = "",
        retention: str = "15d",
        head_from: datetime | None = None,
    ) -> None:
        indented = "".join(f"    {line}\n" for line in tsdb.splitlines())
        config = f"global:\n  scrape_interval: 1m\nstorage:\n  tsdb:\n{indented}"
        begin = 2**63 - 1 if head_from is None else ms_from_instant(head_from)
        head = {"numSeries": 0 if head_from is None else 7, "minTime": begin}
        flags = {
            "web.enable-admin-api": "true",
            "storage.tsdb.path": str(data_dir),
            "storage.tsdb.retention.time": retention,
        }
        runtime = {"startTime": "2025-01-20T00:00:00Z", "storageRetention": retention}
        super().__init__(
            {
                "/api/v1/status/buildinfo": (200, {"version": version}),
                "/api/v1/status/flags": (200, flags),
                "/api/v1/status/runtimeinfo": (200, runtime | {"hostname": "prometheus-0"}),
                "/api/v1/status/config": (200, {"yaml": config if tsdb else "global: {}\n"}),
                "/api/v1/status/tsdb": (200, {"headStats": head}),
            }
        )
        self._data_dir = data_dir

    def answer(self, request: Request, upstream: str) -> tuple[int, str, bytes]:
        """Return what Prometheus would answer about the blocks that are there now."""
        metas: list[dict[str, Any]] = [
            json.loads((path / "meta.json").read_bytes())
            for path in sorted(self._data_dir.iterdir())
            if is_ulid(path.name)
        ]
        self.answers["/api/v1/status/tsdb/blocks"] = (200, {"blocks": metas})
        self.answers["/metrics"] = (200, f"prometheus_tsdb_blocks_loaded {len(metas)}\n")
        return super().answer(request, upstream)
