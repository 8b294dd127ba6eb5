"""The commands of the README, word for word, and what they leave: the run that it shows, and the site."""

import re

import pytest
from tests.docs.blocks import PAGES, README
from tests.docs.reader import Reader, commands

from fedperfit.protocol.system.files import read_json

_ELSEWHERE = re.compile(
    r"""(?:src|data)=["']?(?:https?:)?//|<link[^>]+href=["']?(?:https?:)?//"""
    r"""|url\(["']?https?:|@import ["']http"""
)
pytestmark = pytest.mark.slow  # whichever test comes first types the commands that others share


@pytest.mark.timeout(1200)
def test_its_commands_work(reader: Reader) -> None:
    typed = commands(README)
    assert len(typed) >= 2
    reader.type(typed)


@pytest.mark.timeout(1200)
def test_it_tells_what_its_command_measures(reader: Reader) -> None:
    """Within a few of 480 answers: other processors round differently."""
    reader.type(["fedperfit simulate"])
    (run,) = (reader.folder / "runs").glob("LaMP_2M-*")
    stages = read_json(run / "metrics.json")["stages"]
    readme = README.read_text(encoding="utf-8")
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
