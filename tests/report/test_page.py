"""The page of the report: everything is in it, and nothing that it was given runs."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prometheus_backup.model import Level, Verdict
from prometheus_backup.report.charts import size_bars, timeline_bars
from prometheus_backup.report.document import embedded, report_document, sha256_of
from prometheus_backup.report.page import Page, render
from prometheus_backup.report.plan import Expected, Forecasts, Report, plan_report
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.local import LocalStore
from tests.support.histories import DAY, empty, healthy, put_backup, record, with_faults
from tests.support.repositories import ManualClock
from tests.support.stored_backups import LocalFiles, run_here

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "</style><b>&amp;",
)


class Elements(HTMLParser):
    """Collects elements with their attributes, and all text outside of script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._within = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        del tag
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within not in ("script", "style"):
            self.text += data


def report_of(files: LocalFiles, forecasts: Forecasts | None = None) -> Report:
    repository = Repository(LocalStore(files.root), clock=ManualClock())
    return plan_report(
        repository.entries(),
        repository=repository.url,
        expected=Expected(Policy(), DAY, 30 * DAY),
        storage_class="STANDARD",
        now=datetime.now(UTC),
        forecasts=forecasts,
    )


def page_of(files: LocalFiles) -> Page:
    return render(report_of(files))


def data_in(page: Page) -> str:
    (data,) = re.findall(
        r'<script type="application/json" id="report-data">(.*?)</script>', page.html
    )
    return str(data)


def test_the_data_in_the_page_is_what_its_hash_says(tmp_path: Path) -> None:
    report = report_of(with_faults(tmp_path / "repository"))
    page = render(report)

    data = data_in(page)
    assert json.loads(data) == report_document(report)
    assert hashlib.sha256(data.encode()).hexdigest() == page.sha256 == sha256_of(data)
    assert page.sha256 in Elements(page.html).text


@pytest.mark.parametrize("make", [healthy, with_faults, empty])
def test_nothing_is_loaded_and_nothing_runs(tmp_path: Path, make: type[LocalFiles]) -> None:
    page = page_of(make(tmp_path / "repository"))

    found = Elements(page.html)
    for tag, attributes in found.elements:
        assert tag not in ("iframe", "object", "embed", "img", "form", "base", "audio", "video")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,"))
    scripts = [attributes for tag, attributes in found.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "report-data"}]
    assert "url(" not in page.html.replace("url(#hatch)", "")
    assert "@import" not in page.html


def test_the_policy_of_the_page_allows_its_own_style_only(tmp_path: Path) -> None:
    page = page_of(empty(tmp_path / "repository"))

    (style,) = re.findall(r"<style>(.*?)</style>", page.html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert page.policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    metas = [a for tag, a in Elements(page.html).elements if tag == "meta"]
    assert {"http-equiv": "Content-Security-Policy", "content": page.policy} in metas


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_is_text_wherever_it_comes_from(tmp_path: Path, hostile: str) -> None:
    files, now = empty(tmp_path / "repository"), datetime.now(UTC).replace(microsecond=0)
    harmless = page_of(_with_text(empty(tmp_path / "harmless"), now, "harmless"))
    page = page_of(_with_text(files, now, hostile))

    tags = [(tag, sorted(attributes)) for tag, attributes in Elements(page.html).elements]
    assert tags == [(t, sorted(a)) for t, a in Elements(harmless.html).elements]
    assert Elements(page.html).text.count(hostile) >= 3
    assert hostile in json.dumps(json.loads(data_in(page)), ensure_ascii=False).replace('\\"', '"')


def _with_text(files: LocalFiles, now: datetime, text: str) -> LocalFiles:
    backup = put_backup(
        files,
        now,
        labels={"cluster": text},
        degraded=[text],
        prometheus_url=text,
        retention_time=text,
    )
    record(files, backup, Level.CHECKSUM, Verdict.FAIL, now, detail=text)
    record(files, backup, Level.DRILL, Verdict.PASS, now, seconds={text: 1.5})
    return files


def test_embedded_data_never_ends_its_element() -> None:
    text = "".join(HOSTILE) + "\u2028\u202e\0"
    data = embedded({"text": text})

    assert not set("<>&\u2028\u202e\0") & set(data)
    assert json.loads(data) == {"text": text}


def test_failures_come_first_and_name_their_findings(tmp_path: Path) -> None:
    text = Elements(page_of(with_faults(tmp_path / "repository")).html).text

    assert "Protected, with problems" in text
    assert text.index("not in the repository") < text.index("33 backups")
    assert "2 backups failed verification" in text.lower()


def test_every_colour_has_a_letter_and_words(tmp_path: Path) -> None:
    html = page_of(with_faults(tmp_path / "repository")).html

    cells = re.findall(
        r'<span class="day (\w+)"[^>]*>\d+<b>(\w)</b><span class="unseen">(.+?)<', html
    )
    assert {letter for _, letter, _ in cells} == {"G", "s", "o", "D", "U", "M", "F"}
    for style, letter, words in cells:
        assert f'<span class="{style}">{letter}</span>' in html, "the legend explains it"
        assert words


def test_cost_is_said_for_s3_only(tmp_path: Path) -> None:
    files = healthy(tmp_path / "repository")
    on_s3 = report_of(files)
    elsewhere = replace(on_s3, strategy=None)

    assert on_s3.forecast
    dollars = f"{on_s3.forecast.total('STANDARD'):,.2f} US dollars"
    assert dollars in Elements(render(on_s3).html).text
    text = Elements(render(elsewhere).html).text
    assert "The next 12 months" in text
    assert "dollars" not in text


def test_the_forecast_is_made_again_only_if_a_backup_has_changed(tmp_path: Path) -> None:
    """The exporter serves the page, and looks at the repository every few minutes."""
    files, forecasts = healthy(tmp_path / "repository"), Forecasts()
    first = report_of(files, forecasts).forecast
    assert first == report_of(files).forecast
    assert report_of(files, forecasts).forecast is first

    oldest = min(key.partition("/")[0] for key in files.all_keys())
    shutil.rmtree(files.root / oldest)
    changed = report_of(files, forecasts).forecast
    assert changed == report_of(files).forecast != first
    assert len(forecasts) == 1


def test_a_hold_is_shown_with_its_reason(tmp_path: Path) -> None:
    files = healthy(tmp_path / "repository")
    env = files.environment()
    held = run_here("hold", "latest", "--reason", "audit <2026>", env=env)
    assert held.returncode == 0, held.stderr

    page = page_of(files)
    assert "held: audit <2026>" in Elements(page.html).text
    assert json.loads(data_in(page))["backups"][-1]["hold"] == "audit <2026>"


@pytest.mark.parametrize("year", [1, 1970, 9999])
def test_a_backup_of_a_wrong_clock_is_in_the_table(tmp_path: Path, year: int) -> None:
    files = healthy(tmp_path / "repository")
    odd = f"backup-{year:04}1231-235959"
    body = files.get(files.all_keys()[-1].partition("/")[0] + "/metadata.json")
    document = json.loads(body)
    text = body.decode().replace(document["backup_id"], odd)
    files.put(f"{odd}/metadata.json", text.encode())

    assert odd in Elements(page_of(files).html).text


def test_many_findings_are_counted_and_not_all_shown(tmp_path: Path) -> None:
    files, now = empty(tmp_path / "repository"), datetime.now(UTC).replace(microsecond=0)
    backup = put_backup(files, now)
    record(files, backup, Level.CHECKSUM, Verdict.FAIL, now)
    key = f"{backup}/verification-checksum.json"
    result = json.loads(files.get(key))
    result["findings"] *= 500
    files.put(key, json.dumps(result).encode())

    page = page_of(files)
    assert "and 480 more" in page.html
    assert len(page.html) < 60_000


def test_a_thousand_backups_stay_below_a_megabyte(tmp_path: Path) -> None:
    files, now = empty(tmp_path / "repository"), datetime.now(UTC).replace(microsecond=0)
    for age in range(1000):
        put_backup(files, now - age * DAY)

    assert len(page_of(files).html.encode()) < 1_000_000


def test_bars_lie_within_the_picture(tmp_path: Path) -> None:
    report = report_of(with_faults(tmp_path / "repository"))

    bars = timeline_bars(report.timeline)
    assert {b.kind for b in bars} == {"covered", "hole", "soon"}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    sizes = size_bars([(start + n * DAY, n) for n in range(1000)])
    assert len(sizes) <= 151
    for bar in (*bars, *sizes, *size_bars([(start, 7)])):
        assert 0 <= bar.x <= bar.x + bar.width <= 100.01
        assert 0 <= bar.y <= bar.y + bar.height <= 100.01
    assert size_bars([]) == ()
    assert size_bars([(start, 5), (start + timedelta(days=9), 10)])[-1].height == 100
