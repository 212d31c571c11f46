"""The pages that people read, and the blocks of commands and code in them.

A comment right before a block says what a test does with it:

    <!-- run -->                  runs it in an empty folder
    <!-- run: FLAGS -->           the same, with flags behind each `switchx ...` that make it tiny
    <!-- run in: a trained run --> runs it where runs/quickstart is a run that was trained
    <!-- shown -->                is what the block before it printed, to the letter
    <!-- file: NAME -->           writes it to that file for the blocks after it
    <!-- elsewhere: WHERE -->     says which test or script runs it
    <!-- cloud: WHAT -->          says what it needs that no test has

Commands that a test does not run are parsed: their flags, settings, files and targets exist.
"""

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:^<!-- ([^>]*) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    page: Path
    line: int
    mark: str  # what stands before the colon of the comment
    about: str  # and behind it
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        mark, _, about = (match[1] or "").partition(":")
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, mark.strip(), about.strip(), match[2], match[3]))
    return found


ALL = [block for page in PAGES for block in blocks(page)]
