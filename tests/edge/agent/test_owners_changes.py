"""What an owner sets while something else changes the same file: neither change is lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from tests.edge.edge_clients import write_client

from fedperfit.edge.agent import consent, sealed_history
from fedperfit.edge.agent.history import changing
from fedperfit.edge.agent.sealed_history import seal_history
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json, write_json

Change = Callable[[Path], object]


def seal(folder: Path) -> None:
    seal_history(folder, Vault(folder / "vault"))


def share_nothing(folder: Path) -> None:
    consent.share_metrics(folder, False)


def limit(folder: Path) -> None:
    consent.limit_epsilon(folder, 4.0)


def pause(folder: Path) -> None:
    consent.change_consent(folder, lambda now: replace(now, paused=True))


def refuse_pulls(folder: Path) -> None:
    consent.change_consent(folder, lambda now: now.allowing("pull", False))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_client(tmp_path / "ada", items=2, questions=1)
    write_json(folder / "client.json", {**read_json(folder / "client.json"), "sealed": False})
    return folder


@pytest.mark.parametrize(
    ("slow", "quick"),
    [
        *((seal, share_nothing), (seal, limit), (share_nothing, limit), (limit, seal)),
        *((pause, refuse_pulls), (refuse_pulls, pause)),
    ],
)
def test_two_changes_at_once_are_both_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, slow: Change, quick: Change
):
    others: list[Thread] = []

    def written(path: Path, value: object) -> None:
        if not others:
            others.append(Thread(target=quick, args=(folder,)))
            others[0].start()
            others[0].join(0.2)  # it has to wait for this write, which knows nothing of it
        write_json(path, value)

    for module in (consent, sealed_history):
        monkeypatch.setattr(module, "write_json", written)
    slow(folder)
    others[0].join()
    about, now = read_json(folder / "client.json"), consent.read_consent(folder)
    done = {
        seal: about["sealed"],
        share_nothing: not about["shares_metrics"],
        limit: about.get("personal-epsilon") == 4.0,
        pause: now.paused,
        refuse_pulls: now.refused == ("pull",),
    }
    assert done[slow]
    assert done[quick]


def test_what_is_set_while_a_history_is_imported_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    import_history = Vault.import_history

    def imported(vault: Vault, parts: dict[str, list[dict[str, object]]]) -> None:
        share_nothing(folder)
        import_history(vault, parts)

    monkeypatch.setattr(Vault, "import_history", imported)
    seal(folder)
    about = read_json(folder / "client.json")
    assert (about["sealed"], about["shares_metrics"]) == (True, False)


def test_no_folder_is_made_to_be_changed(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"), changing(tmp_path / "nobody"):
        pass
    assert not (tmp_path / "nobody").exists()
