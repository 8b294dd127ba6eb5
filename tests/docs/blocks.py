"""Command blocks of the README and of the documentation, and which of them a machine like this cannot run."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = (README, *sorted(DOCS.glob("**/*.md")))
_MARK = r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?"
_BLOCK = re.compile(_MARK + r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_GATE = ROOT / ".ci" / "run"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    """What stands behind the fence: `sh`, `python`, or another."""
    text: str
    reason: str
    """Why no test can run it; empty where one does."""

    def commands(self) -> list[str]:
        """What a reader types, one command each, without the installations that the gate makes."""
        lines = [line for line in re.split(r"(?<!\\)\n", self.text) if line.strip()]
        return [line for line in lines if not line.startswith("pip install ")]

    def installations(self) -> list[str]:
        """Its `pip install` commands."""
        return [line for line in self.text.splitlines() if line.startswith("pip install ")]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, one["language"], one["text"], one["reason"] or "") for one in found]


def gate_installs(command: str) -> bool:
    """Whether the gate runs this `pip install` command, apart from options that make it quiet."""
    gate = re.sub(r" --quiet| --disable-pip-version-check", "", _GATE.read_text(encoding="utf-8"))
    return command in gate.splitlines()
