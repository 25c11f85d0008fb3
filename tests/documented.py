"""What the pages show: their blocks of code, command lines, links and headings.

Python in a block called `python` is run by the tests, in a block called `py` it is a fragment; a block with a title is
a file that the page has its reader write.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *(ROOT / folder / "README.md" for folder in ("results", "benchmarks")),
    ]
)
SHELL = ("sh", "bash", "console")
PROGRAMS = ("python", "python3", "pip", "make", "tensorboard", "torchrun")
FENCE = re.compile(r"^ *```(\w*)([^\n]*)\n(.*?)^ *```", flags=re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block."""

    language: str
    title: str
    content: str


def name_of(page):
    """docs/metrics.md."""
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    """All fenced blocks of a page, in order."""
    found = FENCE.findall(page.read_text())
    return [Block(language, "".join(re.findall(r'title="([^"]+)"', rest)), text) for language, rest, text in found]


def prose(page):
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def spans(page):
    """What stands between backticks in the prose."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def command_lines(content):
    """The commands of a shell block as words, continued lines joined, comments left out."""
    lines = content.replace("\\\n", " ").splitlines()
    found = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [words for words in found if words]


def commands(page):
    """Every command that a page shows, in blocks and between backticks, as words."""
    shown = [words for block in blocks(page) if block.language in SHELL for words in command_lines(block.content)]
    inline = [shlex.split(span) for span in spans(page) if " " in span and span.split()[0] in PROGRAMS]
    return shown + [words for words in inline if "…" not in words[-1]]


def files(page):
    """What the page has its reader write: content by name."""
    return {block.title: block.content for block in blocks(page) if block.title}


def links(page):
    """(file, anchor) of every link that leads nowhere outside; the file is empty for the page itself."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    return re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", text)


def anchors(page):
    """Of the headings, as code hosts and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
