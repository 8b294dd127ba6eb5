from pathlib import Path

import pytest
from tests.edge.vault.vaults import ACCOUNT, SHIFT_KEY, small

from fedperfit.edge.vault.vault import Vault


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    vault = Vault(tmp_path / "vault")
    vault.store("full", small(), SHIFT_KEY, ACCOUNT)
    return vault
