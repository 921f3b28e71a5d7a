"""The pages of the documentation, and the fenced blocks in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "findings").glob("*.md")])
MARK = "<!-- run -->"
LANGUAGES = ("sh", "python")
_FENCE = re.compile(r"^```(\S*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: of which page, the line of its fence, its language, its text, whether it is to be run."""

    page: Path
    line: int
    language: str
    text: str
    marked: bool

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").split("\n")
    at = 0
    while at < len(lines):
        if fence := _FENCE.match(lines[at]):
            end = lines.index("```", at + 1)
            marked = at > 0 and lines[at - 1] == MARK
            yield Block(page, at + 1, fence[1], "\n".join(lines[at + 1 : end]) + "\n", marked)
            at = end
        at += 1


ALL = [block for page in PAGES for block in blocks(page)]
RUNNABLE = [page for page in PAGES if any(block.marked for block in blocks(page))]
