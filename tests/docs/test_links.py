"""Links to files of the project work."""

import pytest

from tests.support.pages import ROOT, Page, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_relative_links_resolve(page: Page) -> None:
    for link in page.links():
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), f"{page.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{page.name} links outside the project: {link}"
        if anchor:
            assert anchor in Page(target).anchors(), f"{page.name} links to {link}"


def test_readme_links_every_page_of_the_documentation() -> None:
    linked = {
        (ROOT / link.partition("#")[0]).resolve() for link in Page(ROOT / "README.md").links()
    }
    missing = [
        page.name for page in pages() if page.path not in linked and page.name != "README.md"
    ]
    assert missing == []


def test_mentioned_files_exist() -> None:
    for page in pages():
        for code in page.inline_code():
            if code.startswith(
                ("src/", "tests/", "devtools/", "docs/", "requirements/", "infrastructure/")
            ):
                assert (ROOT / code).exists(), f"{page.name} names {code}"
