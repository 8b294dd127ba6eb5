"""Public bases, and federations in them from the first message to the release."""

import json
from dataclasses import replace

import pytest
import torch
from tests.simulation.small_run import small_settings
from typer.testing import CliRunner

from fedperfit.cloud.job.basis import BASIS, read_basis
from fedperfit.edge.agent.history import History
from fedperfit.edge.engine.layer_gradients import layer_gradient
from fedperfit.protocol.messages.ledger import Ledger
from fedperfit.protocol.messages.settings import FEWEST_PAIRS
from fedperfit.protocol.model.base_model import load
from fedperfit.protocol.shift.basis_sources import federated_basis
from fedperfit.protocol.shift.packing import pack
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.basis import prepared, public
from fedperfit.simulation.basis.public import make_basis, pairs_of_file
from fedperfit.simulation.cli import app
from fedperfit.simulation.run.in_process import run_federation

SMALL = {
    **{"rounds": 2, "clients-per-round": 2, "device": "cpu", "dtype": "float32"},
    **{"collective-rank": 8, "update-columns": 16},
}


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch):
    monkeypatch.setattr(public, "PAIRS", 8)
    monkeypatch.setattr(public, "GROUP", 4)


@pytest.fixture(scope="module")
def histories():
    items = [{"description": f"a film with {n} storms", "tag": "fantasy", "id": str(n)} for n in range(4)]
    about = {"task": TASKS["LaMP_2M"], "shares_metrics": True, "answered": [], "questions": []}
    return [History(name=f"other-{n}", items=items[n:], **about) for n in range(3)]


def federate(histories, folder=None, **settings):
    return run_federation(histories, settings=SMALL | settings, folder=folder)


def test_a_federation_in_a_public_basis_sends_40_bytes_an_update(tmp_path, histories):
    settings = {"update-basis": "public", "transport-dtype": "sign"}
    result = federate(histories, tmp_path, **settings)
    updates = [e for e in Ledger(tmp_path / "ledger" / "train.jsonl").entries() if e.direction == "up"]
    assert [e.payload for e in updates] == [40] * 4
    assert all(e.message < 450 for e in updates)
    basis = read_basis(tmp_path / BASIS)
    assert torch.equal(result.shift.R, basis.R)
    inside = (result.shift.W - result.shift.R) @ torch.linalg.pinv(basis.P) @ basis.P
    torch.testing.assert_close(inside, result.shift.W - result.shift.R, rtol=0, atol=1e-5)
    assert bool(result.shift.b.any())
    assert result.header.dtype == "float32"
    named = federate(histories, **settings, **{"basis-file": str(tmp_path / BASIS)})
    assert pack(named.shift, named.header) == pack(result.shift, result.header)


def test_a_random_basis_needs_no_public_item(histories, monkeypatch):
    monkeypatch.setattr(prepared, "world_pairs", None)
    result = federate(histories, **{"update-basis": "random", "transport-dtype": "int8"})
    assert all(len(report.admitted) == 2 for report in result.rounds)


def test_clients_make_a_basis_of_their_gradients_once(tmp_path, histories):
    histories = [
        replace(
            one, items=[{**one.items[0], "description": f"{n} of {one.name}"} for n in range(FEWEST_PAIRS)]
        )
        for one in histories
    ]
    settings = {"update-basis": "federated", "transport-dtype": "sign"}
    result = federate(histories, tmp_path, **settings)
    pulls = Ledger(tmp_path / "ledger" / "pulls.jsonl").entries()
    assert sorted(entry.client for entry in pulls if entry.direction == "up") == sorted(
        history.name for history in histories
    )
    basis = read_basis(tmp_path / BASIS)
    base = load("embedded", device="cpu", dtype="float32")
    expected = federated_basis(
        [
            layer_gradient(base, history.pairs("lamp", 0), basis.shape.positions)
            for history in sorted(histories, key=lambda history: history.name)
        ],
        basis.shape,
        basis.columns,
        task=basis.task,
        fingerprint=basis.fingerprint,
        seed=0,
    )
    torch.testing.assert_close(basis.R.abs(), expected.R.abs(), rtol=0, atol=1e-3)
    assert torch.equal(result.shift.R, basis.R)
    again = federate(histories, tmp_path, **settings)
    assert len(Ledger(tmp_path / "ledger" / "pulls.jsonl").entries()) == len(pulls), "nobody is asked again"
    assert pack(again.shift, again.header) == pack(result.shift, result.header)


def test_settings_that_do_not_fit_each_other_are_refused(tmp_path, histories):
    with pytest.raises(InputError, match="only for updates in an update-basis"):
        federate(histories, **{"transport-dtype": "sign"})
    with pytest.raises(InputError, match="start at the identity"):
        federate(histories, **{"update-basis": "random", "warm-start": True})
    with pytest.raises(InputError, match="only with update-basis=public"):
        federate(histories, **{"basis-file": "x"})
    with pytest.raises(InputError, match="No such file"):
        federate(histories, **{"update-basis": "public", "basis-file": str(tmp_path / "none")})


def test_the_command_makes_a_basis_of_an_operators_items(tmp_path, histories):
    items = tmp_path / "items.json"
    items.write_text(json.dumps(histories[0].items))
    out = tmp_path / "made.basis"
    run = CliRunner().invoke(app, ["basis", str(out), "--items", str(items), "--set", "update-columns=3"])
    assert run.exit_code == 0, run.output
    base = load("embedded", device="cpu", dtype="float32")
    settings = small_settings(update_columns=3)
    assert read_basis(out).digest == make_basis(base, settings, pairs_of_file(items, settings)).digest
    assert read_basis(out).digest[:16] in run.output.replace("\n", "")


def test_items_that_are_none_are_refused_in_one_line(tmp_path):
    path = tmp_path / "items.json"
    for text, reason in (("{}", "JSON list"), ("[]", "no item"), ('[{"tag": "x"}]', "items.json")):
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            pairs_of_file(path, small_settings())


def test_an_operators_items_are_read_as_histories_are(tmp_path, caplog):
    """Conversations are unfolded, by line or in a list, and a bad item costs itself alone."""
    asked, answered, more = (
        {"role": role, "content": text}
        for role, text in (("user", "Is it done?"), ("assistant", "Nearly."), ("user", "And now?"))
    )
    talks = [{"messages": [asked, answered]}, {"messages": [asked, answered, more, answered]}]
    whole, lines = tmp_path / "items.json", tmp_path / "items.jsonl"
    whole.write_text(json.dumps(talks))
    lines.write_text("\n".join([json.dumps(talks[0]), "{", json.dumps(talks[1])]))
    settings = small_settings(task="messages")
    pairs = pairs_of_file(whole, settings)
    assert [pair.target for pair in pairs] == ["Nearly."] * 3
    assert not caplog.messages
    assert pairs_of_file(lines, settings) == pairs
    assert [f"{lines}, item 2" in told for told in caplog.messages] == [True]
