"""`report`: the page in a file, on standard output, and from the exporter."""

import hashlib
import json
import re
import time
from pathlib import Path

from tests.support.exporter import Served
from tests.support.histories import DAY, empty, newest_night, put_backup, with_faults
from tests.support.stored_backups import json_of, run_here


def test_the_page_is_one_file_with_the_data_that_json_prints(tmp_path: Path) -> None:
    files, target = with_faults(tmp_path / "repository"), tmp_path / "report.html"

    done = run_here("report", f"--output={target}", "--json", env=files.environment())

    document = json_of(done)
    assert document.pop("output") == str(target)
    (data,) = re.findall(r'id="report-data">(.*?)</script>', target.read_text())
    assert document.pop("sha256") == hashlib.sha256(data.encode()).hexdigest()
    assert json.loads(data) == document
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["report.html"]


def test_the_verdict_is_printed_and_the_page_can_be_piped(tmp_path: Path) -> None:
    env = empty(tmp_path / "repository").environment()

    written = run_here("report", f"--output={tmp_path}/report.html", env=env)
    piped = run_here("report", "--output=-", env=env)

    assert written.stdout.splitlines() == [
        "not protected: there is no good backup",
        f"wrote {tmp_path}/report.html",
    ]
    assert piped.stdout.startswith("<!doctype html>\n")
    assert piped.stdout.rstrip().endswith("</html>")


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    env = empty(tmp_path / "repository").environment()
    (tmp_path / "taken").mkdir()

    for target, cause in (("taken", "Is a directory"), ("no/report.html", "No such file")):
        done = run_here("report", f"--output={tmp_path}/{target}", env=env)
        assert done.returncode == 33
        assert f"cannot write report {tmp_path}/{target}: {cause}" in done.stderr
        assert "hint" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["repository", "taken"]


def test_the_exporter_serves_the_page_made_anew_with_its_figures(tmp_path: Path) -> None:
    files = empty(tmp_path / "repository")
    with Served.over(files.root, tmp_path) as exporter:
        first = exporter.get("/")
        put_backup(files, newest_night())
        deadline = time.monotonic() + 120
        while "Protected" not in (page := exporter.get("/")).text:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        figures = exporter.values

    assert first.status_code == 200
    assert "there is no good backup" in first.text.lower()
    assert figures["prometheus_backup_good_backups"] == 1
    headers = page.headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("; frame-ancestors 'none'")
    assert "script-src" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"


def test_an_exporter_that_never_read_the_repository_has_no_page(tmp_path: Path) -> None:
    (tmp_path / "repository").touch()
    with Served.over(tmp_path / "repository", tmp_path) as exporter:
        page = exporter.get("/")
        metrics = exporter.get("/metrics")

    assert page.status_code == 503
    assert "could not be read" in page.text
    assert "repository_readable" in metrics.text
    assert metrics.headers["x-content-type-options"] == "nosniff"


def test_a_thousand_backups_make_a_page_of_less_than_a_megabyte(tmp_path: Path) -> None:
    files, night = empty(tmp_path / "repository"), newest_night()
    for age in range(1000):
        put_backup(files, night - age * DAY, size=10**9 + age)
    target = tmp_path / "report.html"

    done = run_here("report", f"--output={target}", env=files.environment())

    assert done.returncode == 0
    assert target.stat().st_size < 1_000_000
