"""Runs a real Prometheus server on loopback, which scrapes itself, and calls its API."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import LOOPBACK, Process, clean_environment, with_free_ports
from devtools.remote_write import Histogram, Series, remote_write

USERNAME = "backup"
PASSWORD = "prometheus-secret"
# bcrypt of PASSWORD at the lowest cost: Prometheus computes it for each request.
_PASSWORD_HASH = "$2b$04$Gy44UrzU2tMXX/dQaMeBQekXBX6bmLrdYujBHa/LNSL0fYPIRt9Fq"
# 1.5 times the block length: Prometheus compacts a longer head into a block.
_LONGEST_HEAD = timedelta(hours=3)


@dataclass(frozen=True, kw_only=True)
class PrometheusOptions:
    """How Prometheus is started. The defaults are for the source of a backup."""

    scrape_interval: str | None = "1s"
    """How often it scrapes its own metrics, which fill the head; None for no scraping."""
    admin_api: bool = True
    agent: bool = False
    basic_auth: bool = False
    """Require `USERNAME` and `PASSWORD` for every path."""
    route_prefix: str = ""
    """For example `/prom`; the URL includes it."""
    retention: str | None = "10y"
    """None for the default, 15d, which deletes old blocks soon after the start."""
    min_block_duration: str | None = None
    """A hidden flag: with `10s`, the head becomes a block after about 15 s."""
    external_labels: dict[str, str] = field(default_factory=dict)
    config: str = ""
    """More YAML for the configuration file, such as `storage:` or `rule_files:`."""
    extra_flags: tuple[str, ...] = ()
    user: int | None = None
    """The uid and gid to run as; it must have access to the program and the data directory."""


class PrometheusServer:
    """One server on one data directory; a context manager that stops it.

    The configuration and the log are next to the data directory, in `<name>.run/`. Times are
    timezone-aware.
    """

    def __init__(
        self,
        binaries: PrometheusBinaries,
        data_dir: Path,
        options: PrometheusOptions | None = None,
    ) -> None:
        """Start it and wait until it is ready; raises `ProcessFailedError`."""
        self.binaries = binaries
        self.data_dir = data_dir
        self.options = options or PrometheusOptions()
        self.run_dir = data_dir.with_name(f"{data_dir.name}.run")
        self._port = 0
        self._process = with_free_ports(1, lambda ports: self._start(ports[0]))

    @property
    def url(self) -> str:
        """Its URL with the route prefix and without a trailing slash."""
        return f"http://{LOOPBACK}:{self._port}{self.options.route_prefix}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """The log of all its runs."""
        return self._process.log

    @property
    def running(self) -> bool:
        """Whether its process is still running."""
        return self._process.running

    def start(self) -> None:
        """Start it again on the same port, after `stop` or `kill`."""
        self._process = self._start(self._port)

    def stop(self) -> None:
        """Terminate it and wait until it has ended."""
        self._process.stop()

    def kill(self) -> None:
        """Kill it with SIGKILL, like a crash."""
        self._process.kill()

    def restart(self) -> None:
        """Stop it cleanly and start it again on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop answering until `resume`, with connections left open."""
        self._process.pause()

    def resume(self) -> None:
        """Answer again after `pause`."""
        self._process.resume()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get(self, path: str, **parameters: str) -> Any:
        """GET an API path such as `status/flags`; return `data` or raise `RuntimeError`."""
        return self._call("GET", path, parameters)

    def post(self, path: str, **parameters: str) -> Any:
        """POST to an API path; return `data` or raise `RuntimeError`."""
        return self._call("POST", path, parameters)

    def query(self, expression: str, at: datetime | None = None) -> list[dict[str, Any]]:
        """Run an instant query; return the result sorted by labels, for comparison."""
        parameters = {"query": expression}
        if at is not None:
            parameters["time"] = f"{at.timestamp():.3f}"
        data = self.get("query", **parameters)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        return sorted(data["result"], key=lambda one: json.dumps(one["metric"], sort_keys=True))

    def query_range(
        self, expression: str, start: datetime, end: datetime, step: str = "60s"
    ) -> list[dict[str, Any]]:
        """Run a range query; return the result sorted by labels."""
        data = self.get(
            "query_range",
            query=expression,
            start=f"{start.timestamp():.3f}",
            end=f"{end.timestamp():.3f}",
            step=step,
        )
        return sorted(data["result"], key=lambda one: json.dumps(one["metric"], sort_keys=True))

    def wait_until_series(self, expression: str, *, deadline: float = 30) -> None:
        """Wait until an instant query of the expression returns a result."""
        self._process.wait_until(
            lambda: bool(self.query(expression)),
            what=f"answers {expression!r}",
            deadline=deadline,
        )

    def wait_until_blocks(self, count: int, *, deadline: float = 60) -> None:
        """Wait until the server has loaded at least `count` blocks."""
        self._process.wait_until(
            lambda: self.loaded_blocks() >= count,
            what=f"has loaded {count} blocks",
            deadline=deadline,
        )

    def loaded_blocks(self) -> int:
        """Return the number of loaded blocks, from its own metric."""
        return int(self._metric("prometheus_tsdb_blocks_loaded"))

    def wait_until_scraped(self, samples: int = 2, *, deadline: float = 30) -> None:
        """Wait until the head has this many scrapes of itself; the first takes six seconds."""
        self._process.wait_until(
            lambda: any(
                float(one["value"][1]) >= samples
                for one in self.query('count_over_time(up{job="self"}[1h])')
            ),
            what=f"has scraped itself {samples} times",
            deadline=deadline,
        )

    def write(
        self, metric: str, samples: Sequence[tuple[datetime, float | Histogram]], **labels: str
    ) -> None:
        """Add samples of one series to the head, in order of time."""
        remote_write(self.url, [Series({"__name__": metric, **labels}, samples)], self._auth)

    def fill_head(
        self,
        *,
        series: int = 20,
        span: timedelta = timedelta(minutes=30),
        step: timedelta = timedelta(seconds=30),
        metric: str = "devtools_head",
        seed: int = 0,
    ) -> None:
        """Add samples from the last `span` to the head, without waiting for a scrape.

        If the span is over three hours, Prometheus compacts the older part into blocks within
        seconds. If its newest block is older than that, it also starts a block, finds it empty and
        discards it. This waits until both are done.
        """
        values = random.Random(seed)
        end = datetime.now(UTC)
        times = [end - step * count for count in reversed(range(int(span / step) + 1))]
        remote_write(
            self.url,
            [
                Series(
                    {"__name__": metric, "series": str(number)},
                    [(at, values.uniform(0, 1000)) for at in times],
                )
                for number in range(series)
            ],
            self._auth,
        )
        if self.options.min_block_duration is None:
            self._process.wait_until(
                lambda: self._head_span() <= _LONGEST_HEAD, what="has cut its head", deadline=60
            )

    def _head_span(self) -> timedelta:
        newest = self._metric("prometheus_tsdb_head_max_time")
        return timedelta(milliseconds=newest - self._metric("prometheus_tsdb_head_min_time"))

    def snapshot(self, *, skip_head: bool = False) -> Path:
        """Create a snapshot with the Admin API; return its directory."""
        name = self.post("admin/tsdb/snapshot", skip_head=str(skip_head).lower())["name"]
        return self.data_dir / "snapshots" / str(name)

    def delete_series(self, matcher: str) -> None:
        """Delete series: writes tombstones into the blocks that contain them."""
        self.post("admin/tsdb/delete_series", **{"match[]": matcher})

    def clean_tombstones(self) -> None:
        """Rewrite blocks that have tombstones, with new ULIDs."""
        self.post("admin/tsdb/clean_tombstones")

    def _call(self, method: str, path: str, parameters: dict[str, str]) -> Any:
        with self._client() as client:
            answer = client.request(method, f"{self.url}/api/v1/{path}", params=parameters)
        if not answer.is_success:
            raise RuntimeError(f"{method} {answer.url}: {answer.status_code} {answer.text}")
        return answer.json()["data"] if answer.content else None

    def metrics(self) -> str:
        """Return its own metrics."""
        with self._client() as client:
            return client.get(f"{self.url}/metrics").raise_for_status().text

    def _metric(self, name: str) -> float:
        for line in self.metrics().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"its metrics do not include {name}")

    @property
    def _auth(self) -> tuple[str, str] | None:
        return (USERNAME, PASSWORD) if self.options.basic_auth else None

    def _client(self) -> httpx.Client:
        return httpx.Client(trust_env=False, timeout=60, auth=self._auth)

    def _start(self, port: int) -> Process:
        self._port = port
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        process = Process(
            f"prometheus {self.binaries.version}",
            [self.binaries.prometheus, *self._flags()],
            log=self.run_dir / "prometheus.log",
            environment=clean_environment(self.run_dir / "home"),
            user=self.options.user,
        )
        process.wait_until(self._ready)
        process.check_listens(port)
        return process

    def _ready(self) -> bool:
        try:
            with self._client() as client:
                return client.get(f"{self.url}/-/ready").is_success
        except httpx.HTTPError:
            return False

    def _flags(self) -> list[str]:
        options = self.options
        config = self.run_dir / "prometheus.yml"
        config.write_text(_configuration(options, self._port))
        path_flag = "storage.agent.path" if options.agent else "storage.tsdb.path"
        flags = [
            f"--config.file={config}",
            f"--web.listen-address={LOOPBACK}:{self._port}",
            f"--{path_flag}={self.data_dir}",
        ]
        if options.admin_api:
            flags.append("--web.enable-admin-api")
        if options.route_prefix:
            flags.append(f"--web.external-url={self.url}")
        if options.basic_auth:
            web = self.run_dir / "web.yml"
            web.write_text(f"basic_auth_users:\n  {USERNAME}: {_PASSWORD_HASH}\n")
            flags.append(f"--web.config.file={web}")
        if options.agent:
            agent = "--enable-feature=agent" if self.binaries.major == 2 else "--agent"
            return [*flags, agent, *options.extra_flags]
        flags.append("--web.enable-remote-write-receiver")
        if options.retention:
            flags.append(f"--storage.tsdb.retention.time={options.retention}")
        if options.min_block_duration:
            flags.append(f"--storage.tsdb.min-block-duration={options.min_block_duration}")
        return [*flags, *options.extra_flags]


class PrometheusFleet:
    """Starts any number of servers; a context manager that stops them all."""

    def __init__(self, directory: Path) -> None:
        """Create data directories that are not given in `directory`."""
        self._directory = directory
        self._servers: list[PrometheusServer] = []

    def __call__(
        self,
        binaries: PrometheusBinaries,
        data_dir: Path | None = None,
        options: PrometheusOptions | None = None,
    ) -> PrometheusServer:
        """Start another server; see `PrometheusServer`."""
        data_dir = data_dir or self._directory / f"prometheus-{len(self._servers)}" / "data"
        server = PrometheusServer(binaries, data_dir, options)
        self._servers.append(server)
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.kill()  # faster than a clean stop; their data is deleted anyway


def _configuration(options: PrometheusOptions, port: int) -> str:
    interval = options.scrape_interval or "1m"
    lines = ["global:", f"  scrape_interval: {interval}", f"  scrape_timeout: {interval}"]
    if options.external_labels:
        labels = (f"{name}: {json.dumps(value)}" for name, value in options.external_labels.items())
        lines += ["  external_labels:", *(f"    {label}" for label in labels)]
    if options.scrape_interval:
        lines += [
            "scrape_configs:",
            "- job_name: self",
            f"  metrics_path: {options.route_prefix}/metrics",
            "  static_configs:",
            f"  - targets: ['{LOOPBACK}:{port}']",
        ]
        if options.basic_auth:
            lines.append(f"  basic_auth: {{username: {USERNAME}, password: {PASSWORD}}}")
    return "\n".join(lines) + f"\n{options.config}\n"
