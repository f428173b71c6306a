"""Reads the documentation: pages with their code blocks, headings and links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"

_FENCE = re.compile(r"(?:<!-- runs: (\w+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced code block; `runs` names how tests run it, or is empty."""

    runs: str
    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the project."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        """Its content."""
        return self.path.read_text()

    def blocks(self, language: str | None = None) -> list[Block]:
        """Return its fenced code blocks, of one language or all."""
        found = [Block(m[1] or "", m[2], m[3]) for m in _FENCE.finditer(self.text)]
        return [b for b in found if language in (None, b.language)]

    def prose(self) -> str:
        """Return its text without fenced code blocks."""
        return _FENCE.sub("", self.text)

    def inline_code(self) -> list[str]:
        """Return its inline code."""
        return _INLINE.findall(self.prose())

    def links(self) -> list[str]:
        """Return the targets of its links."""
        return _LINK.findall(self.prose())

    def anchors(self) -> set[str]:
        """Return the anchors of its headings, as GitHub generates them."""
        titles = _HEADING.findall(self.prose())
        return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


def pages() -> list[Page]:
    """Return all pages for users and contributors."""
    return [Page(p) for p in [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]]


def kubectl_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each kubectl command in shell code, also of those in pipes and `$( )`."""
    for line in text.splitlines():
        for part in re.split(r" \| |\$\(|\)(?=$| )", line):
            found = re.search(r"(?:^|until )(kubectl .*)", part)
            if found:
                yield shlex.split(found[1].partition(";")[0])


def commands_in(page: Page) -> Iterator[str]:
    """Yield the `prometheus-backup ...` command lines of a page, without pipes and comments."""
    lines = [line for block in page.blocks("bash") for line in block.text.splitlines()]
    for text in [*lines, *page.inline_code()]:
        found = re.match(r"(?:\$ )?prometheus-backup( [^|#>]*|$)", text)
        if found:
            yield found[0].removeprefix("$ ").strip()
