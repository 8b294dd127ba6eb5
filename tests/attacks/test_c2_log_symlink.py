"""Code in the sandbox puts a link where its log was and dies; its next output must not follow the link."""

import sys
import time
from pathlib import Path

import pytest
from tests.edge.deployment.deployments import settings
from tests.edge.deployment.sandboxes import sandboxed

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.system.processes import Child, Children, wait_until

MARK = "echo planted by the cloud"
REPLACE = """
import os, sys
link, target, *places = sys.argv[1:]
for place in places:
    for name in os.listdir(place) if os.path.isdir(place) else []:
        path = os.path.join(place, name)
        try:
            os.unlink(path)
            getattr(os, link)(target, path)
        except OSError:
            pass
    try:
        getattr(os, link)(target, os.path.join(place, "supernode.log"))
    except OSError:
        pass
"""
SAY = f"print({MARK!r}, flush=True)"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "bashrc"
    path.write_text("# the person's\n")
    return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "ada")
    for folder in (home.node, home.bridge):
        folder.mkdir(parents=True)
    settings().write(home)
    write_json(home.node / "address.json", {"address": "127.0.0.1:9"})
    return home


def ended(child: Child) -> None:
    child.process.wait(60)


@pytest.mark.parametrize("link", ["symlink", "link"])
def test_guard_off_a_log_in_a_writable_folder_is_written_through_the_link(home, target, link) -> None:
    """The arrangement that was: the log in a folder of the SuperNode's, opened by its path."""
    log = home.node / "supernode.log"
    with Children() as children:
        for code, arguments in ((REPLACE, (link, target, home.node)), (SAY, ())):
            ended(children.start("x", [sys.executable, "-c", code, *map(str, arguments)], log=log))
    assert MARK in target.read_text()


@pytest.mark.parametrize("link", ["symlink", "link"])
def test_guard_on_nothing_lands_in_the_target(home, target, link) -> None:
    sandboxed("", shown={})  # skips where there is no sandbox
    node = SuperNode(home, unconfined=False)
    places = ["/edge/node", "/edge/bridge", "/edge/uplink", "/edge", "/proc/self/fd", home.folder, home.node]
    with node.connected(), Children() as children:
        for code, arguments in ((REPLACE, (link, target, *places)), (SAY, ())):
            ended(node.start(children, [sys.executable, "-c", code, *map(str, arguments)]))
        assert wait_until(lambda: MARK in home.supernode_log.read_text(), 30)
    assert target.read_text() == "# the person's\n"
    assert not home.supernode_log.is_symlink()
    assert home.supernode_log.stat().st_nlink == 1


def test_guard_on_the_log_can_be_neither_shortened_nor_read(home) -> None:
    sandboxed("", shown={})
    code = """
import os
again = "/proc/self/fd/1"
for act in (lambda: os.ftruncate(1, 0), lambda: os.pread(1, 9, 0), lambda: os.open(again, os.O_TRUNC)):
    try:
        act()
    except OSError as error:
        pass
print("second", flush=True)
"""
    node = SuperNode(home, unconfined=False)
    with node.connected(), Children() as children:
        ended(node.start(children, [sys.executable, "-c", "print('first', flush=True)"]))
        assert wait_until(lambda: "first" in home.supernode_log.read_text(), 30)
        ended(node.start(children, [sys.executable, "-c", code]))
        assert wait_until(lambda: "second" in home.supernode_log.read_text(), 30)
        time.sleep(0.1)
    assert home.supernode_log.read_text().splitlines() == ["first", "second"]
