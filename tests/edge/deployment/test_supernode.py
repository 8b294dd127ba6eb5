from pathlib import Path

import pytest
from tests.edge.deployment.deployments import settings

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "ada")
    home.node.mkdir(parents=True)
    write_json(home.node / "address.json", {"address": "cloud.example.org:8443"})
    settings().write(home)
    return home


def test_an_agent_on_a_port_of_the_loopback_is_not_reached_from_the_sandbox(home: Home) -> None:
    settings(tcp=True).write(home)
    with pytest.raises(InputError, match=r"agent\.json: tcp: "), SuperNode(home, False).connected():
        pass
    with SuperNode(home, True).connected():
        pass


def test_a_system_without_a_sandbox_is_told_at_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home.folder))
    with pytest.raises(InputError, match="bwrap is missing"), SuperNode(home, False).connected():
        pass
