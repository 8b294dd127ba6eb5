"""An edge's settings in its folder; which of its programs are started, and when they are started anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from tests.edge.deployment.deployments import settings

from fedperfit.edge.agent.history import SEALED
from fedperfit.edge.deployment import joining
from fedperfit.edge.deployment.home import Home, read_settings
from fedperfit.edge.deployment.joining import keep_running
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json


class FakeChildren:
    """Programs that only say that they run."""

    def __init__(self) -> None:
        self.children: list[SimpleNamespace] = []
        self.did: list[str] = []

    def start(self, name: str, *_: object, **__: object) -> SimpleNamespace:
        self.did.append(f"start {name}")
        self.children.append(SimpleNamespace(name=name))
        return self.children[-1]

    def stop(self, child: SimpleNamespace) -> None:
        self.did.append(f"stop {child.name}")
        self.children.remove(child)

    def dead(self) -> None:
        return None

    def __enter__(self) -> "FakeChildren":
        return self

    def __exit__(self, *_: object) -> None:
        self.children.clear()


class FakeProgram:
    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def connected(self) -> Iterator[None]:
        yield

    def start(self, children: FakeChildren) -> SimpleNamespace:
        return children.start(self.name)


@pytest.mark.parametrize("changed", [True, False])
def test_what_talks_to_the_cloud_starts_anew_when_its_authorities_changed(tmp_path, monkeypatch, changed):
    home, children, asked = Home(tmp_path / "ada"), FakeChildren(), []
    settings(memory_gib=3.0).write(home)
    write_json(
        home.folder / "client.json", {"name": "ada", "task": "LaMP_2M", "shares_metrics": False, SEALED: True}
    )
    monkeypatch.setattr(joining, "Children", lambda: children)
    monkeypatch.setattr(joining, "SuperNode", lambda *_: FakeProgram("supernode"))
    monkeypatch.setattr(joining, "FetcherProgram", lambda *_: FakeProgram("fetcher"))
    monkeypatch.setattr(joining, "_agent_up", lambda *_: True)
    monkeypatch.setattr(joining, "limit_memory", lambda gib: children.did.append(f"at most {gib:g} GiB"))
    monkeypatch.setattr(joining.time, "sleep", lambda seconds: None)
    turns = iter(range(5))
    keep_running(
        home,
        unconfined=True,
        say=lambda line: None,
        stopping=lambda: next(turns, None) is None,
        changed=lambda: asked.append(1) or changed,
    )
    assert len(asked) == 1, "at the beginning, then every hour"
    first = ["at most 3 GiB", "start agent", "start supernode", "start fetcher"]
    anew = ["stop supernode", "start supernode", "stop fetcher", "start fetcher"]
    assert children.did == first + (anew if changed else [])


def test_settings_survive_their_file(tmp_path):
    home = Home(tmp_path)
    with pytest.raises(InputError, match="not a joined edge"):
        read_settings(home)
    settings().write(home)
    assert read_settings(home) == settings()
    for broken in ('{"base-model": 3}', "[]", '{"base-model": "x", "release-key": "0"}', '{"surprise": 1}'):
        (tmp_path / "agent.json").write_text(broken)
        with pytest.raises(InputError):
            read_settings(home)
