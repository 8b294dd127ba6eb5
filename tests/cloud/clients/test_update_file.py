"""Updates in a file: what is read is what was admitted, to the bit, in memory or on disk, in any order."""

from types import SimpleNamespace

import pytest
import torch
from tests.cloud.fake_grid import SHAPE, flat, perturbed

from fedperfit.cloud.clients import update_file
from fedperfit.cloud.clients.admission import Update
from fedperfit.cloud.clients.coordinate_gate import CoordinateUpdate
from fedperfit.cloud.clients.update_file import FiledChange, FiledShift, UpdateFile
from fedperfit.cloud.rounds import coordinate_form
from fedperfit.cloud.rounds.coordinate_form import CoordinateForm
from fedperfit.cloud.rounds.settings import FederationSettings
from fedperfit.protocol.shift.shift import Shift


@pytest.mark.parametrize("most", [100, 1 << 20], ids=["on disk", "in memory"])
def test_what_is_kept_is_read_to_the_bit(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(update_file, "WAITING_BYTES", most)
    start = Shift.identity(SHAPE, seed=0)
    shifts = [perturbed(start, str(number)) for number in range(5)]
    changes = [torch.randn(7, generator=torch.Generator().manual_seed(number)) for number in range(5)]
    whole, moved = UpdateFile(), UpdateFile()
    kept = [
        (
            FiledShift.keep(Update(str(n), shift, 1 + n, {"loss": 0.5}, 9), whole),
            FiledChange.keep(CoordinateUpdate(str(n), change, 1 + n, {}, 9), moved),
        )
        for n, (shift, change) in enumerate(zip(shifts, changes, strict=True))
    ]
    for number in (3, 0, 4, 1, 2, 3):
        shift, change = kept[number]
        assert flat(shift.shift) == flat(shifts[number])
        assert torch.equal(change.change, changes[number])
        assert (shift.client, shift.items, shift.metrics, shift.trained) == (
            *(str(number), 1 + number),
            *({"loss": 0.5}, 9),
        )


@pytest.mark.parametrize("codec", ["sign", "float32"])
def test_a_mean_in_parts_is_the_mean_of_all(monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    settings = FederationSettings(rounds=1, dtype=codec)
    form = CoordinateForm(SimpleNamespace(numbers=11), settings)  # type: ignore[arg-type]
    keep = form.keeper()
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(10, 11, generator=draws)
    updates = [keep(CoordinateUpdate(str(n), row, 1 + n % 3, {}, 1)) for n, row in enumerate(rows)]
    weights = torch.tensor([1.0 + n % 3 for n in range(10)], dtype=torch.double)
    changes = rows.double()
    if codec == "sign":
        changes = changes.sign() * changes.abs().mean(dim=1).median()
    mean = (weights / weights.sum()) @ changes
    assert torch.equal(form._change(updates), mean), "up to so many rows, to the bit"
    monkeypatch.setattr(coordinate_form, "rows_at_once", lambda numbers: 3)
    torch.testing.assert_close(form._change(updates), mean, atol=1e-15, rtol=1e-14)
