"""Secure sums in a whole federation in process: every client both trains and may be a member."""

import json

import pytest
import torch
from tests.simulation.small_run import prepare, small_settings

from fedperfit.edge.agent.history import read_history
from fedperfit.edge.sums.party import ANSWERED, KEYS
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.client_app import CLIENTS, ENROLLED, REFUSALS
from fedperfit.simulation.run.in_process import run_federation

SUMS = {
    "update-basis": "random",
    "transport-dtype": "sign",
    "secure-aggregation": "committee",
    "committee-size": 4,
    "committee-corrupt": 1,
    "committee-threshold": 3,
    "fewest-contributors": 3,
    "clients-per-round": 0,
    "rounds": 2,
    "collective-max-items": 4,
    "device": "cpu",
    "dtype": "float32",
}


@pytest.mark.slow
def test_a_federation_sums_over_its_clients_and_the_cloud_keeps_no_single_update(tmp_path):
    world = tmp_path / "world"
    prepare(world, small_settings(others=6, targets=1, new=1, collective_sizes=[]))
    histories = [read_history(world / CLIENTS / str(number)) for number in range(6)]
    result = run_federation(histories, settings=SUMS, folder=tmp_path / "run")
    folder = tmp_path / "run"
    assert [report.skipped for report in result.rounds] == [False, False]
    assert [(report.items, report.loss) for report in result.rounds] == [(0, None)] * 2
    assert float(result.shift.b.abs().max()) > 0
    assert not (folder / REFUSALS).exists()
    assert len(list(folder.glob(f"{CLIENTS}/*/{ANSWERED}/*"))) == 2 * 4
    assert set(json.loads((folder / CLIENTS / ENROLLED).read_text())) == {h.name for h in histories}
    assert all((folder / CLIENTS / str(number) / KEYS).stat().st_mode & 0o077 == 0 for number in range(6))
    again = run_federation(histories, settings=SUMS, folder=tmp_path / "run")
    assert again.rounds == result.rounds


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def _killed(*_: object) -> None:
    raise Killed


@pytest.mark.slow
def test_a_run_that_is_killed_with_all_answers_goes_on_to_the_same_shift(tmp_path, monkeypatch):
    world = tmp_path / "world"
    prepare(world, small_settings(others=6, targets=1, new=1, collective_sizes=[]))
    histories = [read_history(world / CLIENTS / str(number)) for number in range(6)]
    whole = run_federation(histories, settings=SUMS, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("fedperfit.cloud.rounds.sums.reconstruct", _killed)
        with pytest.raises(Killed):
            run_federation(histories, settings=SUMS, folder=tmp_path / "killed")
    resumed = run_federation(histories, settings=SUMS, folder=tmp_path / "killed")
    assert resumed.rounds == whole.rounds
    assert torch.equal(resumed.shift.b, whole.shift.b)
    assert len(list((tmp_path / "killed").glob(f"{CLIENTS}/*/{ANSWERED}/*"))) == 2 * 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"malicious": 0.2}, "no lie can replace what is sealed"),
        ({"collective_sizes": [2]}, "a training of 2 clients has no sum"),
        ({"transport_dtype": "bfloat16"}, "no fixed point"),
    ],
)
def test_settings_that_make_no_sum_are_refused_in_a_line(changes, said):
    values = {
        "update_basis": "random",
        "transport_dtype": "sign",
        "secure_aggregation": "committee",
        "others": 20,
        "collective_sizes": [],
    }
    assert small_settings(**values).secure
    with pytest.raises(InputError, match=said) as error:
        small_settings(**values | changes)
    assert "\n" not in str(error.value)
