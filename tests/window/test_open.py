"""`open`: a real Prometheus on the blocks of a time, and nothing left of it at the end."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from devtools.prometheus import PrometheusServer
from prometheus_backup.model import Layout
from prometheus_backup.prometheus.answers import differences
from prometheus_backup.repository.fingerprint import read_answer
from prometheus_backup.repository.manifest import Manifest, decode_manifest
from prometheus_backup.stores.local import LocalStore
from tests.support.drills import Drilling, program, servers
from tests.support.runs import options, take_backup
from tests.support.started_cli import CliResult, StartedCli
from tests.support.stored_backups import LocalFiles, flip_one_bit, json_of, run_here
from tests.support.waiting import wait_until

FOLDER = "prometheus-backup-open"


def manifest_of(drilling: Drilling) -> Manifest:
    body = drilling.files.get(f"{drilling.backup}/metadata.json")
    return decode_manifest(body, backup_id=drilling.backup)


@contextmanager
def opened(
    drilling: Drilling, directory: Path, *arguments: str, **env: str
) -> Iterator[tuple[StartedCli, dict[str, Any]]]:
    """A window that is open, and the document that it wrote."""
    command = ("open", *arguments, "--json")
    with StartedCli(*command, env=drilling.environment(**env), directory=directory) as window:
        yield window, json.loads(window.wait_for_output("\n}\n"))


def closed(drilling: Drilling, window: StartedCli, number: int = signal.SIGINT) -> CliResult:
    """Stop a window; check that nothing is left."""
    window.send(number)
    ended = window.end()
    assert servers(drilling.scratch) == []
    assert list(drilling.scratch.iterdir()) == []
    return ended


def get(address: str, path: str, **parameters: str) -> httpx.Response:
    parts = urlsplit(address)
    return httpx.get(f"{parts.scheme}://{parts.netloc}{path}", params=parameters, timeout=60)


def loaded(address: str) -> int:
    text = get(address, "/metrics").text
    found = re.search(r"^prometheus_tsdb_blocks_loaded (\d+)$", text, re.MULTILINE)
    assert found
    return int(found[1])


def test_it_answers_what_the_source_answered(drilling: Drilling, tmp_path: Path) -> None:
    manifest = manifest_of(drilling)

    with opened(drilling, tmp_path / "window") as (window, document):
        answers = [
            get(document["url"], "/api/v1/query", query=f.query, time=f"{f.at.timestamp()}")
            for f in manifest.fingerprints
            if f.at is not None
        ]
        targets = get(document["url"], "/api/v1/targets").json()["data"]["activeTargets"]
        flags = get(document["url"], "/api/v1/status/flags").json()["data"]
        ended = closed(drilling, window)

    recorded = [f.answer for f in manifest.fingerprints]
    assert len(answers) == len(recorded) == 3
    for answer, expected in zip(answers, recorded, strict=True):
        assert expected is not None
        assert expected.series
        assert not differences(expected, read_answer(answer.json()["data"]))
    assert targets == [], "it scrapes nothing"
    assert flags["storage.tsdb.retention.time"] == "100y"
    assert flags["storage.tsdb.min-block-duration"] == "100y", "it compacts nothing"
    assert flags["web.listen-address"].startswith("127.0.0.1:")
    assert (ended.code, document["outcome"]) == (0, "done"), ended.log


def test_the_address_has_the_time_range_and_leads_to_the_page(
    drilling: Drilling, tmp_path: Path
) -> None:
    oldest = min(manifest_of(drilling).blocks, key=lambda b: b.min_time)
    start, end = (f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in (oldest.min_time, oldest.max_time))

    with opened(drilling, tmp_path / "window", "--from", start, "--to", end) as (window, document):
        address = document["url"]
        count, home = loaded(address), get(address, "/").headers["Location"]
        folder = drilling.scratch / FOLDER / "data"
        fetched = {p.name for p in folder.iterdir() if len(p.name) == 26}
        closed(drilling, window)

    parts, values = urlsplit(address), parse_qs(urlsplit(address).query)
    assert fetched == {oldest.ulid}, "only the blocks of that time"
    assert (document["blocks"], count) == (1, 1)
    assert document["bytes"] == oldest.size
    assert (document["backup_id"], document["fits"]) == (drilling.backup, True)
    assert parts.path == home
    assert values["g0.end_input"] == [f"{oldest.max_time:%Y-%m-%d %H:%M:%S}"]
    seconds = (oldest.max_time - oldest.min_time).total_seconds()
    assert values["g0.range_input"] == [f"{seconds // 3600:.0f}h{seconds % 3600 // 60:.0f}m"]


@pytest.mark.parametrize("arguments", [(), ("--history",)], ids=["backup", "history"])
def test_a_backup_in_the_archive_and_its_history_can_be_opened_too(
    prometheus: PrometheusServer, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    files = LocalFiles(tmp_path / "repository")
    files.root.mkdir()
    made = take_backup(prometheus, LocalStore(files.root), options(layout=Layout.ARCHIVE))
    drilling = Drilling(files, made.manifest.backup_id, prometheus.binaries, tmp_path / "scratch")

    with opened(drilling, tmp_path / "window", *arguments) as (window, document):
        count = loaded(document["url"])
        assert closed(drilling, window).code == 0

    assert count == document["blocks"] == len(made.manifest.blocks)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_stop_closes_the_window_and_removes_all_of_it(
    drilling_3: Drilling, tmp_path: Path, number: int
) -> None:
    with StartedCli("open", env=drilling_3.environment(), directory=tmp_path / "window") as window:
        text = window.wait_for_output("Ctrl-C closes the window")
        assert len(servers(drilling_3.scratch)) == 1
        ended = closed(drilling_3, window, number)

    assert ended.code == 0, ended.log
    assert re.search(r"^http://127\.0\.0\.1:\d+/query\?g0\.expr=up&", text, re.MULTILINE)
    assert re.search(r"to fetch from backup-\S+: 5 blocks, \d+ files", ended.log)
    assert re.search(r"are free in \S+, which is enough", ended.log)
    assert "the window is closed" in ended.log


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_a_stop_before_it_is_open_removes_all_of_it_too(
    drilling_3: Drilling, tmp_path: Path, number: int, code: int
) -> None:
    silent = program(
        tmp_path / "prometheus",
        "if sys.argv[1:] == ['--version']: sys.exit('prometheus, version 3.5.0')",
        "time.sleep(600)",
    )
    env = drilling_3.environment(PROMETHEUS_BINARY=silent)
    with StartedCli("open", env=env, directory=tmp_path / "window") as window:
        wait_until(lambda: len(servers(drilling_3.scratch)) == 1)
        ended = closed(drilling_3, window, number)

    assert (ended.code, ended.output) == (code, "")


def test_prometheus_ends_with_a_killed_window_and_the_next_one_removes_the_rest(
    drilling_3: Drilling, tmp_path: Path
) -> None:
    with opened(drilling_3, tmp_path / "window") as (window, _):
        window.kill()
        window.end()
    wait_until(lambda: servers(drilling_3.scratch) == [])
    assert list((drilling_3.scratch / FOLDER / "data").iterdir())

    with opened(drilling_3, tmp_path / "next") as (window, _):
        ended = closed(drilling_3, window)

    assert "removing leftovers of a killed window" in ended.log


def test_a_second_window_needs_another_scratch_directory(
    drilling_3: Drilling, tmp_path: Path
) -> None:
    with opened(drilling_3, tmp_path / "window") as (window, first):
        second = run_here("open", env=drilling_3.environment())
        elsewhere = str(tmp_path / "elsewhere")
        with opened(drilling_3, tmp_path / "other", "--scratch", elsewhere) as (other, document):
            assert loaded(first["url"]) == loaded(document["url"]) == 5
            other.send(signal.SIGINT)
            assert other.end().code == 0
        closed(drilling_3, window)

    assert second.returncode == 11
    assert "another open is running there" in second.stderr
    assert "--scratch" in second.stderr


def test_a_port_can_be_chosen_unless_it_is_taken(drilling_3: Drilling, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run_here("open", "--port", port, env=drilling_3.environment())
        assert list(drilling_3.scratch.iterdir()) == []
    with opened(drilling_3, tmp_path / "window", "--port", port) as (window, document):
        closed(drilling_3, window)

    assert refused.returncode == 2
    assert f"at port {port}: another process uses it" in refused.stderr
    assert urlsplit(document["url"]).port == int(port)


def test_a_window_that_does_not_fit_fetches_nothing(drilling_3: Drilling) -> None:
    def huge(document: dict[str, Any]) -> None:
        document["blocks"][0]["files"][0]["size"] = 2**49

    drilling_3.change_manifest(huge)
    planned = run_here("open", "--dry-run", env=drilling_3.environment())
    document = json_of(
        run_here("open", "--dry-run", "--json", env=drilling_3.environment()), code=33
    )
    done = run_here("open", env=drilling_3.environment())

    assert planned.returncode == done.returncode == 33
    assert "512.0 TiB to fetch" in planned.stdout
    assert re.search(r"are free in \S+, but 512\.0 TiB are needed", planned.stdout)
    assert document["fits"] is False
    assert re.search(r"but 512\.0 TiB are needed", done.stderr), "said before"
    assert "fetching" not in done.stderr
    assert "or open only a part with --from" in done.stderr


def test_a_dry_run_needs_no_prometheus_and_writes_nothing(drilling_3: Drilling) -> None:
    env = drilling_3.environment(PROMETHEUS_BINARY="/nonexistent")

    done = run_here("open", "--dry-run", env=env)

    assert done.returncode == 0
    assert "which is enough" in done.stdout
    assert not drilling_3.scratch.exists()


def test_without_a_prometheus_it_says_what_to_do(drilling_3: Drilling) -> None:
    env = drilling_3.environment(PROMETHEUS_BINARY="no-such-prometheus")

    done = run_here("open", env=env)

    assert done.returncode == 2
    assert "cannot run Prometheus 'no-such-prometheus': not found in PATH" in done.stderr
    assert "docs/how-to/look-into-the-past.md" in done.stderr
    assert not drilling_3.scratch.exists()


def test_a_damaged_block_is_left_out_and_reported(drilling_3: Drilling, tmp_path: Path) -> None:
    ulid = drilling_3.ulids()[1]
    flip_one_bit(drilling_3.files, f"{drilling_3.backup}/{ulid}/index")

    with opened(drilling_3, tmp_path / "window") as (window, document):
        count = loaded(document["url"])
        ended = closed(drilling_3, window)

    assert (ended.code, document["outcome"], count) == (3, "partial", 4)
    assert f"without block {ulid}: " in ended.log


def test_with_nothing_but_damaged_blocks_it_fails(drilling_3: Drilling) -> None:
    for ulid in drilling_3.ulids():
        flip_one_bit(drilling_3.files, f"{drilling_3.backup}/{ulid}/index")

    done = run_here("open", env=drilling_3.environment())

    assert (done.returncode, done.stdout) == (40, "")
    assert list(drilling_3.scratch.iterdir()) == []


def test_a_prometheus_that_ends_closes_the_window(drilling_3: Drilling, tmp_path: Path) -> None:
    with opened(drilling_3, tmp_path / "window") as (window, _):
        (server,) = servers(drilling_3.scratch)
        server.kill()
        ended = window.end()

    assert ended.code == 20
    assert "cannot keep the window open: Prometheus ended with -9" in ended.log
    assert list(drilling_3.scratch.iterdir()) == []


@pytest.mark.parametrize("kind", ["exits", "never ready"])
def test_a_prometheus_that_does_not_start_is_exit_20(
    drilling_3: Drilling, tmp_path: Path, kind: str
) -> None:
    broken = program(
        tmp_path / "prometheus",
        "if sys.argv[1:] == ['--version']: sys.exit('prometheus, version 3.5.0')",
        "sys.exit('level=ERROR err=\"I cannot go on\"')" if kind == "exits" else "time.sleep(600)",
    )
    env = drilling_3.environment(PROMETHEUS_BINARY=broken)

    done = run_here("open", "--wait=1s", env=env)

    assert done.returncode == 20
    cause = "ended with 1 before it was ready: level=ERROR err" if kind == "exits" else "within 1 s"
    assert cause in done.stderr
    assert servers(drilling_3.scratch) == []
    assert list(drilling_3.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--from=2025-01-02", "--to=2025-01-01"), 2, "--to is not after --from"),
        (("latest", "--to=2001-01-01"), 2, "it has no block in this time range"),
        (("--to=2001-01-01",), 30, "with samples of this time range"),
        (("backup-20010101-000000",), 30, "cannot find backup"),
        (("--port=0",), 2, "cannot use --port"),
        (("--from=yesterday",), 2, "cannot read time"),
    ],
)
def test_what_cannot_be_opened_is_refused(
    drilling_3: Drilling, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run_here("open", *arguments, env=drilling_3.environment())

    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert not drilling_3.scratch.exists()
