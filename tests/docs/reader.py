"""A reader of the pages, who types their commands in a shell, in a folder with what a checkout has."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.blocks import DOCS, ROOT, blocks
from tests.shell import Shell, started_in

OWN_METHOD = DOCS / "own-method.md"
CHECKOUT = ("constraints.txt", "mkdocs.yml", "README.md", "docs", "examples", "src", "tools")
"""What commands need of a checkout beside the installed package."""


def commands(page: Path) -> list[str]:
    """The commands of a page that run on a machine like this, in order."""
    run_here = [block for block in blocks(page) if block.language == "sh" and not block.reason]
    return [command for block in run_here for command in block.commands()]


class Reader:
    """Types each command once, wherever the pages repeat it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._typed: set[str] = set()

    def type(self, commands: Iterable[str]) -> None:
        """Run commands in a new shell; fails when one does."""
        shell = Shell(self.folder)
        try:
            for command in commands:
                if command not in self._typed:
                    shell.run(command)
                    self._typed.add(command)
        finally:
            shell.end()


@contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """Give a reader an empty folder, and end what was started there."""
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())  # Flower packs no links
    (code,) = (block.text for block in blocks(OWN_METHOD) if block.language == "python")
    (folder / "latest.py").write_text(code)
    try:
        yield Reader(folder)
    finally:
        for process in started_in(folder):
            process.kill()
