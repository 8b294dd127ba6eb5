"""Files that an edge keeps, cut off or of something else: what reads them names them in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.broken_files import check_named

from fedperfit.edge.agent.consent import limit_epsilon, share_metrics
from fedperfit.edge.agent.sealed_history import seal_history
from fedperfit.edge.consent.guard import Guard
from fedperfit.edge.deployment.home import Home, client_name, cloud_address
from fedperfit.edge.sums.party import KEYS, LISTS, SumParty, make_keys
from fedperfit.edge.vault.vault import Vault
from fedperfit.protocol.secure_sums.keys import Directory
from fedperfit.protocol.trust.authorities import read_number

READERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("guard.json", lambda folder: Guard(folder / "guard.json", None)),
    ("node/address.json", lambda folder: cloud_address(Home(folder))),
    ("client.json", lambda folder: client_name(Home(folder))),
    ("client.json", lambda folder: share_metrics(folder, True)),
    ("client.json", lambda folder: limit_epsilon(folder, 1.0)),
    ("client.json", lambda folder: seal_history(folder, Vault(folder / "vault"))),
    ("authorities.json", lambda folder: read_number(folder / "authorities.json")),
    (KEYS, make_keys),
    (KEYS, lambda folder: SumParty(folder, "ada", Directory({}))),
    (f"{LISTS}/first.json", lambda folder: _told_to(folder)),
]


def _told_to(folder: Path) -> None:
    (folder / KEYS).unlink(missing_ok=True)
    make_keys(folder)
    SumParty(folder, "ada", Directory({}))._keep_list(["ada", "bob"])


@pytest.mark.parametrize("content", [b'{"name": "a', b"[7]", b'"x"', b"\xff"])
@pytest.mark.parametrize(
    ("file", "read"), READERS, ids=[f"{n}-{file}" for n, (file, _) in enumerate(READERS)]
)
def test_a_broken_file_is_named(
    tmp_path: Path, file: str, read: Callable[[Path], Any], content: bytes
) -> None:
    check_named(tmp_path, file, read, content)
