"""The commands of README and docs, word for word, in a reader's shell; a federation's have their own test."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from tests.docs.blocks import DOCS, PAGES, ROOT, blocks
from tests.shell import Shell, started_in

from fedperfit.protocol.system.files import read_json

FEDERATION = DOCS / "federation.md"
"""Run by tests/simulation/test_deployment.py, with every byte recorded."""
OWN_METHOD = DOCS / "own-method.md"
CHECKOUT = ("constraints.txt", "mkdocs.yml", "README.md", "docs", "examples", "src", "tools")
"""What commands need of a checkout beside the installed package."""
_ELSEWHERE = re.compile(
    r"""(?:src|data)=["']?(?:https?:)?//|<link[^>]+href=["']?(?:https?:)?//"""
    r"""|url\(["']?https?:|@import ["']http"""
)
pytestmark = pytest.mark.slow  # whichever test comes first types the commands that others share
with_commands = [
    page
    for page in PAGES
    if page != FEDERATION and any(one.language == "sh" and not one.reason for one in blocks(page))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in, which holds what a checkout has."""
    folder = tmp_path_factory.mktemp("reader")
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())  # Flower packs no links
    (code,) = (block.text for block in blocks(OWN_METHOD) if block.language == "python")
    (folder / "latest.py").write_text(code)
    yield folder
    for process in started_in(folder):
        process.kill()


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


@pytest.fixture(scope="module")
def reader(folder: Path) -> Reader:
    return Reader(folder)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", with_commands, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work(page: Path, reader: Reader) -> None:
    run_here = [block for block in blocks(page) if block.language == "sh" and not block.reason]
    reader.type(command for block in run_here for command in block.commands())


@pytest.mark.timeout(1200)
def test_the_readme_tells_what_its_command_measures(reader: Reader) -> None:
    """Within a few of 480 answers: other processors round differently."""
    reader.type(["fedperfit simulate"])
    (run,) = (reader.folder / "runs").glob("LaMP_2M-*")
    stages = read_json(run / "metrics.json")["stages"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row, stage in (("base model alone", "base"), ("collective + personal", "personal")):
        told = re.search(rf"\| \**{re.escape(row)}\** \| \**(\.\d+) \[", readme)
        assert told is not None
        assert abs(stages[stage]["metrics"]["accuracy"]["value"] - float(told[1])) < 0.01


def test_the_site_asks_no_other_server_for_anything(reader: Reader) -> None:
    reader.type(["mkdocs build --strict"])
    files = [*(reader.folder / "site").rglob("*.html"), *(reader.folder / "site").rglob("*.css")]
    assert len(files) > len(PAGES)
    asking = {file.name: _ELSEWHERE.findall(file.read_text(encoding="utf-8")) for file in files}
    assert {name: found for name, found in asking.items() if found} == {}
