import pytest
import torch
from tests.simulation.small_run import prepare, small_settings

from fedperfit.cloud.rounds.round_report import RoundReport
from fedperfit.protocol.messages.settings import CoordinateSettings
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.coordinate_packing import (
    Agreement,
    pack_coordinates,
    pack_update,
    unpack_update,
)
from fedperfit.protocol.shift.packing import ShiftHeader, pack, unpack
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import read_json
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release_file import read_release
from fedperfit.simulation import stored_models
from fedperfit.simulation.run.faults import ATTACKS, attacked, attacked_update
from fedperfit.simulation.run.job import run_cohorts
from fedperfit.simulation.run.runner import run_simulation

SHAPE = ShiftShape(layers=(1,), rank=2, hidden_size=4, positions=Positions.parse("l7"))
HEADER = ShiftHeader(shape=SHAPE, task="LaMP_2M", fingerprint="f", round=0)


def test_what_liars_send():
    before, after = Shift.identity(SHAPE, seed=0), Shift.identity(SHAPE, seed=0)
    with torch.no_grad():
        before.W += 0.5
        after.W += 0.6
        after.b += 0.2
    packed = [pack(shift, HEADER) for shift in (before, after)]
    lies = {kind: unpack(attacked(kind, *packed))[0] for kind in ATTACKS[:-1]}
    for kind, W, b in (("sign-flip", 0.4, -0.2), ("scale", 10.5, 20.0), ("constant", 1.0, 1.0)):
        lie = lies[kind]
        assert torch.allclose(lie.W - lie.R, torch.full_like(lie.W, W), atol=1e-5)
        assert torch.allclose(lie.b, torch.full_like(lie.b, b), atol=1e-5)
    assert lies["nans"].W.isnan().all()
    undone = lies["collude"]  # W - R was moved by .5 in all, by .1 in this round, which also moved b by .2
    assert torch.allclose(undone.W - undone.R, torch.full_like(undone.W, 0.5 - _honest_size()), atol=1e-5)
    assert torch.allclose(undone.b, torch.zeros_like(undone.b), atol=1e-6)


def _honest_size() -> float:
    """Size of each of 8 equal entries that together are as long as the honest change."""
    return ((8 * 0.1**2 + 2 * 0.2**2) / 8) ** 0.5


@pytest.mark.parametrize("codec", ["float32", "sign"])
def test_what_liars_send_in_a_basis(codec):
    basis = random_basis(SHAPE, 2, task="LaMP_2M", fingerprint="f", seed=0)
    told = Agreement(basis.digest, codec, 0)
    change, learned = (torch.linspace(-1, end, basis.numbers) for end in (2.0, 0.5))
    packed = pack_coordinates(Coordinates.of(basis, learned), told), pack_update(change, told, 0)
    wanted = CoordinateSettings(basis=basis.digest, codec=codec)
    lies = {kind: attacked_update(kind, *packed, wanted) for kind in ATTACKS[:-1]}
    assert len({len(lie) for lie in lies.values()}) == 1
    honest = unpack_update(packed[1], told, basis.numbers)
    for kind, by in (("sign-flip", -1.0), ("scale", 100.0)):
        torch.testing.assert_close(
            unpack_update(lies[kind], told, basis.numbers), by * honest, rtol=0.01, atol=0
        )
    assert bool((unpack_update(lies["constant"], told, basis.numbers) == 1).all())
    undoing = unpack_update(lies["collude"], told, basis.numbers)
    assert torch.equal(undoing.sign(), -learned.sign())
    with pytest.raises(InputError):
        unpack_update(lies["nans"], told, basis.numbers)


def test_votes_outvote_liars_and_survive_lost_clients(tmp_path):
    basis = {"update_basis": "random", "transport_dtype": "sign"}
    honest, _ = reports(tmp_path / "honest", **basis)
    flipped, _ = reports(tmp_path / "flip", malicious=0.3, attack="scale", **basis)
    assert not any(report.dropped for report in honest + flipped)
    nan, _ = reports(tmp_path / "nan", malicious=0.3, attack="nans", dropout=0.2, **basis)
    assert all(2 <= len(report.dropped) < 6 for report in nan)
    assert any("a scale of nan" in why for report in nan for why in report.dropped.values())


def reports(folder, **changes) -> tuple[list[RoundReport], bytes]:
    settings = small_settings(
        history_lengths=[], collective_sizes=[], others=6, clients_per_round=0, rounds=3, **changes
    )
    prepare(folder, settings)
    stored_models._copies.cache_clear()
    run_cohorts(folder, lambda event: None)
    rounds = [RoundReport.from_json(report) for report in read_json(folder / "rounds.json")]
    return rounds, read_release(folder / FILE_NAME).packed


def test_lost_clients_are_the_same_for_a_seed_and_others_each_round(tmp_path):
    first, packed = reports(tmp_path / "a", dropout=0.4)
    again, packed_again = reports(tmp_path / "b", dropout=0.4)
    assert (first, packed) == (again, packed_again)
    dropped = [set(report.dropped) for report in first]
    assert any(dropped)
    assert len(set(map(frozenset, dropped))) > 1
    assert all("Node Unavailable" in why for report in first for why in report.dropped.values())


def test_liars_are_refused_at_the_gate_or_outvoted(tmp_path):
    honest, packed = reports(tmp_path / "honest", aggregation="median")
    assert not any(report.dropped for report in honest)
    nan, _ = reports(tmp_path / "nan", malicious=0.3, attack="nans")
    assert [len(report.dropped) for report in nan] == [2, 2, 2]
    assert all("contains NaN" in why for report in nan for why in report.dropped.values())
    poisoned, lied = reports(tmp_path / "flip", malicious=0.3, attack="constant", aggregation="median")
    assert not any(report.dropped for report in poisoned)
    _, led = reports(tmp_path / "mean", malicious=0.3, attack="constant")

    def far(other: bytes) -> float:
        (one, _), (two, _) = unpack(packed), unpack(other)
        return float((one.b - two.b).norm())

    assert 10 * far(lied) < far(led)


def test_liars_are_the_same_in_every_round_and_run_and_mix_their_lies(tmp_path):
    runs = [
        reports(tmp_path / name, malicious=0.67, attack="mixed", aggregation="median") for name in ("a", "b")
    ]
    assert runs[0] == runs[1]
    nans = [
        [client for client, why in report.dropped.items() if "contains NaN" in why] for report in runs[0][0]
    ]
    assert len(nans[0]) == 1  # of four liars
    assert nans == [nans[0]] * 3


def test_faults_need_the_backend_that_has_them(tmp_path):
    prepare(tmp_path, small_settings(dropout=0.3))
    with pytest.raises(InputError, match="--backend cohorts"):
        run_simulation(tmp_path, clients=7, client_gpus=0.0, on_event=lambda event: None)
    for wrong in (
        {"dropout": 1.0},
        {"attack": "other"},
        {"aggregation": "other"},
        {"assumed_malicious": 0.5},
    ):
        with pytest.raises(InputError):
            small_settings(**wrong)
