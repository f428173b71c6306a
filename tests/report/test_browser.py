"""The page in a real Chromium: no request, no message, readable, accessible."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.browser import Tab, browser
from devtools.fetch_chromium import ChromiumMissingError, find
from tests.support.exporter import Served
from tests.support.histories import empty, healthy, newest_night, put_backup, with_faults
from tests.support.stored_backups import LocalFiles, run_here

HISTORIES: dict[str, Callable[[Path], LocalFiles]] = {
    "healthy": healthy,
    "with_faults": with_faults,
    "empty": empty,
}


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of each repository."""
    folder = tmp_path_factory.mktemp("pages")
    for name, make in HISTORIES.items():
        env = make(folder / name).environment()
        done = run_here("report", f"--output={folder}/{name}.html", env=env)
        assert done.returncode == 0, done.stderr
    return {name: folder / f"{name}.html" for name in HISTORIES}


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1920])
def test_page_is_readable_quiet_and_accessible(
    tab: Tab, pages: dict[str, Path], name: str, dark: bool, width: int
) -> None:
    tab.show_as(width=width, dark=dark)
    tab.open(pages[name].as_uri())

    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.styleSheets[0].cssRules.length > 20"), "the policy allows it"
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    tab.picture(pages[name].with_name(f"{name}-{width}-{'dark' if dark else 'light'}.png"))
    assert (tab.requests, tab.messages) == ([pages[name].as_uri()], [])
    found = {v["id"]: v["nodes"][0]["html"] for v in tab.violations()}
    assert found == {}


def test_data_is_read_from_the_page_and_hashes_to_what_it_says(
    tab: Tab, pages: dict[str, Path]
) -> None:
    tab.open(pages["with_faults"].as_uri())

    data = "document.getElementById('report-data').textContent"
    assert tab.evaluate(f"JSON.parse({data}).verdict.protection") == "protected, with problems"
    digest = tab.evaluate(
        f"crypto.subtle.digest('SHA-256', new TextEncoder().encode({data})).then(d => "
        "[...new Uint8Array(d)].map(b => b.toString(16).padStart(2, '0')).join(''))"
    )
    assert digest in tab.evaluate("document.body.innerText")


def test_every_section_is_reached_by_keyboard_links_and_headings(
    tab: Tab, pages: dict[str, Path]
) -> None:
    tab.open(pages["healthy"].as_uri())

    targets = tab.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    headings = tab.evaluate("[...document.querySelectorAll('main h2')].map(h => h.id)")
    assert targets == headings
    regions = tab.evaluate(
        "[...document.querySelectorAll('.scroll')].map(e => [e.tabIndex, e.ariaLabel])"
    )
    assert all(index == 0 and label for index, label in regions)


def test_page_prints_on_light_paper(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["with_faults"].as_uri())
    assert tab.pdf().startswith(b"%PDF")


def test_hostile_text_runs_nothing_in_a_browser(tab: Tab, tmp_path: Path) -> None:
    files = empty(tmp_path / "repository")
    attack = (
        "</script><script>document.title='run'</script><img src=x onerror=document.title='run'>"
    )
    put_backup(files, newest_night(), labels={"cluster": attack}, degraded=[attack])
    target = tmp_path / "report.html"
    assert run_here("report", f"--output={target}", env=files.environment()).returncode == 0

    tab.open(target.as_uri())

    assert tab.requests == [target.as_uri()]
    assert tab.messages == []
    assert "run" not in tab.evaluate("document.title").split()
    assert attack in tab.evaluate("document.body.innerText")


def test_page_of_the_exporter_is_as_quiet_under_its_headers(tab: Tab, tmp_path: Path) -> None:
    files = healthy(tmp_path / "repository")
    with Served.over(files.root, tmp_path) as exporter:
        tab.open(f"{exporter.url}/")

        assert tab.requests == [f"{exporter.url}/"]
        assert tab.messages == []
        assert tab.evaluate("document.querySelector('h1').innerText").startswith("Backups in file:")
        assert tab.evaluate("getComputedStyle(document.querySelector('.recent')).color")


def test_a_missing_chromium_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devtools.fetch_chromium._PROGRAM", tmp_path / "chromium")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(ChromiumMissingError, match="run `make test`, which fetches it"):
        find()
