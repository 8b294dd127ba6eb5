from pathlib import Path
from typing import Any

import pytest
import torch
from tests.simulation.benchmark.benchmark_cases import tiny_base, tiny_workload
from torch import nn

from fedperfit.edge.engine.rows import batch_loss, collate
from fedperfit.protocol.model.layers import decoder_layers
from fedperfit.protocol.shift.injection import injected
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation import optional
from fedperfit.simulation.benchmark import lora, pyreft_peer
from fedperfit.simulation.benchmark.workload import make_examples


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every loss LoRA's loop computes, at a rate that a tiny model learns with."""
    pytest.importorskip("peft")
    seen: list[float] = []

    def spy(*args: Any) -> torch.Tensor:
        loss = batch_loss(*args)
        seen.append(loss.item())
        return loss

    monkeypatch.setattr(lora, "batch_loss", spy)
    monkeypatch.setattr(lora, "LEARNING_RATE", 1e-1)
    return seen


def test_lora_learns_starts_anew_per_user_and_leaves_the_model_as_it_was(losses: list[float]) -> None:
    base, workload = tiny_base(), tiny_workload(personal_epochs=30)
    users = list(make_examples(base, workload))
    batch = collate(users[0], base.device)
    before = base.model(batch.ids).logits
    state = lora.lora(base, [users[0], users[0]], workload)
    first, second = losses[: workload.steps], losses[workload.steps :]
    assert state == 4 * base.card.lora_qv
    assert sum(first[-4:]) / 4 < first[0] - 0.15
    assert second[0] == pytest.approx(first[0], rel=0.05)
    assert not base.model.training
    assert base.model(batch.ids).logits.equal(before)
    assert not any("lora" in name for name, _ in base.model.named_modules())


def test_lora_checkpointing_learns_the_same(losses: list[float]) -> None:
    base, workload = tiny_base(), tiny_workload(personal_epochs=2)
    users = list(make_examples(base, workload))
    lora.lora(base, users, workload)
    plain = losses.copy()
    losses.clear()
    lora.lora_checkpointing(base, users, workload)
    assert losses == pytest.approx(plain, rel=1e-5)
    assert not base.model.is_gradient_checkpointing


@pytest.mark.parametrize(("checkpointing", "passes"), [(False, 1), (True, 2)])
def test_checkpointing_really_runs_each_layer_twice(checkpointing: bool, passes: int) -> None:
    pytest.importorskip("peft")
    base = tiny_base()
    (examples, _) = make_examples(base, tiny_workload())
    calls: list[nn.Module] = []
    with lora.adapted(base, checkpointing=checkpointing) as model:
        for layer in decoder_layers(base.model):
            layer.self_attn.q_proj.register_forward_hook(lambda module, *_: calls.append(module))
        batch_loss(model, collate(examples, base.device)).backward()
    assert len(calls) == 4 * passes


def test_pyrefts_intervention_is_our_shift() -> None:
    pytest.importorskip("pyreft")
    base, workload = tiny_base(), tiny_workload()
    (examples, _) = make_examples(base, workload)
    model = pyreft_peer.make_model(base, workload)
    interventions = list(model.interventions.values())
    collective = workload.settings.shape(base.card)
    shape = ShiftShape(collective.layers, workload.settings.personal_rank, 32, collective.positions)
    with torch.no_grad():
        shift = pyreft_peer.as_shift(model, shape)
        batch = collate(examples, base.device)
        with injected(base.model, [shift], shape.positions.mask(batch.prompt)):
            ours = base.model(batch.ids).logits
        rows = [[*range(7), *range(13, 20)]] * len(examples)
        locations = {"sources->base": (None, [rows] * len(interventions))}
        inputs = {"input_ids": batch.ids, "attention_mask": batch.attention.long()}
        theirs = model(inputs, unit_locations=locations)[1].logits
        assert torch.allclose(theirs, ours, atol=1e-5)
        assert not torch.allclose(base.model(batch.ids).logits, ours, atol=1e-3)


def test_pyreft_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("pyreft")
    losses: list[float] = []
    compute_loss = library.ReftTrainer.compute_loss

    def spy(*args: Any) -> Any:
        loss = compute_loss(*args)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(library.ReftTrainer, "compute_loss", spy)
    base, workload = tiny_base(), tiny_workload(personal_epochs=30, personal_learning_rate=1e-1)
    users = list(make_examples(base, workload))
    before = base.model(torch.tensor([users[0][0].prompt])).logits
    state = pyreft_peer.pyreft(base, [users[0], users[0]], workload)
    first, second = losses[: workload.steps], losses[workload.steps :]
    assert state == 4 * len(workload.settings.shape(base.card).layers) * (2 * 4 * 32 + 4)
    assert sum(first[-4:]) / 4 < first[0] - 0.15
    assert len(second) == workload.steps
    assert not base.model.training
    assert base.model(torch.tensor([users[0][0].prompt])).logits.equal(before)


def test_a_missing_library_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(optional.COMMANDS, "no_such_library", "pip install it")
    with pytest.raises(InputError, match=r"no_such_library cannot be imported .* pip install it"):
        optional.required("no_such_library")


def test_a_library_that_fits_no_other_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unfit_library.py").write_text("raise AttributeError('numpy\\nhas no such thing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(optional.COMMANDS, "unfit_library", "pip install it")
    with pytest.raises(
        InputError, match=r"^unfit_library cannot .* \(numpy has no such thing\): pip install"
    ):
        optional.required("unfit_library")
