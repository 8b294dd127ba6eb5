"""A simulated run whose people have their shifts fitted under noise."""

from pathlib import Path

import pytest
from tests.simulation.small_run import run_locally, small_settings

from fedperfit.edge.vault.vault import VAULT, Vault
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json

BASIS = {"update_basis": "random", "update_columns": 4, "personal_basis": "update", "personal_columns": 4}


def test_every_person_is_fitted_under_the_limit_and_no_loss_is_told(tmp_path: Path) -> None:
    settings = small_settings(
        personal_epsilon=8.0,
        history_lengths=[],
        collective_sizes=[],
        new=1,
        transport_dtype="float32",
        **BASIS,
    )
    run_locally(tmp_path, settings)
    told = read_json(tmp_path / "results" / "personalize.json")
    assert len(told) == 2
    assert all(answer["metrics"] == {} for answer in told.values())
    assert all(read_json(tmp_path / "results" / "evaluate-personal.json").values())
    kept = [Vault(folder / VAULT) for folder in (tmp_path / "clients").iterdir() if folder.is_dir()]
    records = [vault.open(slot)[0].fit_record for vault in kept for slot in vault.slots()]
    assert [record.epsilon for record in records] == [8.0] * 2


def test_a_limit_without_a_basis_is_one_line() -> None:
    with pytest.raises(InputError, match="personal-epsilon=8: only with a personal-basis"):
        small_settings(personal_epsilon=8.0)
