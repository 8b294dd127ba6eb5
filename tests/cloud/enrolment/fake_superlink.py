"""A SuperLink's nodes without the SuperLink, and kills at every step of what changes them."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.cloud.enrolment import registration
from fedperfit.protocol.system.errors import RunFailed
from fedperfit.protocol.system.files import read_json

_CHANGES = ("write_invitation", "write_json", "revoke_invitation", "register_node", "unregister_node")


class Killed(BaseException):
    """The process ends here."""


class FakeSuperLink:
    """Registers nodes as Flower does: a key that was ever registered is not registered again."""

    def __init__(self) -> None:
        self.nodes: dict[str, int] = {}
        self.keys_ever: set[str] = set()
        self.up = True
        self.calls = 0
        self._ids = count(1 << 63)

    def register(self, home: CloudHome, key: str) -> int:
        self._check_up()
        if key in self.keys_ever:
            raise RunFailed("Flower did not register the node: public key already in use")
        self.keys_ever.add(key)
        self.nodes[key] = next(self._ids)
        return self.nodes[key]

    def unregister(self, home: CloudHome, node: int) -> None:
        self._check_up()
        keys = [key for key, number in self.nodes.items() if number == node]
        if not keys:
            raise RunFailed("Flower did not unregister the node: not found")
        del self.nodes[keys[0]]

    def find(self, home: CloudHome, key: str) -> int | None:
        self._check_up()
        return self.nodes.get(key)

    def _check_up(self) -> None:
        self.calls += 1
        if not self.up:
            raise RunFailed("the SuperLink does not answer")


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> FakeSuperLink:
    fake = FakeSuperLink()
    for name in ("register", "unregister", "find"):
        monkeypatch.setattr(registration, f"{name}_node", getattr(fake, name))
    monkeypatch.setattr(registration, "wait_for_superlink", lambda home, settings: None)
    return fake


class Kills:
    """Ends the process before or after the n-th thing that it changes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self.at = -1
        for name in _CHANGES:
            monkeypatch.setattr(registration, name, self._step(getattr(registration, name)))
        monkeypatch.setattr(Path, "unlink", self._unlink(Path.unlink))

    def _step(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **named: Any) -> Any:
            self._pass()
            done = change(*arguments, **named)
            self._pass()
            return done

        return changed

    def _unlink(self, unlink: Callable[..., None]) -> Callable[..., None]:
        step = self._step(unlink)

        def unlinked(path: Path, missing_ok: bool = False) -> None:
            record = path.parent.name == "nodes" and not path.name.startswith(".")
            (step if record else unlink)(path, missing_ok=missing_ok)

        return unlinked

    def _pass(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed


def check_whole(home: CloudHome, superlink: FakeSuperLink) -> None:
    """Nothing is half registered: the SuperLink's nodes are those on record, under their ids."""
    records = [read_json(path) for path in home.nodes.glob("*.json")]
    assert {record["key"]: int(record["node"]) for record in records} == superlink.nodes
    assert set(registration.enrolled(home)) == set(superlink.nodes.values())
