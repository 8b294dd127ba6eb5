"""The commands of the docs, word for word, in a reader's shell.

Those of the README are typed in a file of their own, and those of a federation where every byte is recorded.
"""

from pathlib import Path

import pytest
from tests.docs.blocks import DOCS, PAGES, README
from tests.docs.reader import Reader, commands

FEDERATION = DOCS / "federation.md"
"""Run by tests/simulation/test_deployment.py."""
pytestmark = pytest.mark.slow  # whichever test comes first types the commands that others share
with_commands = [page for page in PAGES if page not in (README, FEDERATION) and commands(page)]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", with_commands, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work(page: Path, reader: Reader) -> None:
    typed_elsewhere = commands(README)
    reader.type(command for command in commands(page) if command not in typed_elsewhere)
