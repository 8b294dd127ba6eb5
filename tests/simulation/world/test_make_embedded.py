from functools import partial
from itertools import islice

import torch

from fedperfit.protocol.model.base_model import EMBEDDED, load
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.world import make_embedded
from fedperfit.simulation.world.build import population_pairs
from fedperfit.simulation.world.make_embedded import _collate, _loss, build_model, train, train_tokenizer


def test_the_same_seed_gives_the_same_model(capsys, monkeypatch):
    monkeypatch.setattr(make_embedded, "train_tokenizer", partial(train_tokenizer, pairs_per_task=200))
    monkeypatch.setattr(make_embedded, "_LAYERS", 1)
    (first, _), (second, _), (other, _) = (train(seed, 2, 4, 1e-3) for seed in (1, 1, 2))
    state = first.state_dict()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in state.items())
    assert not all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())
    assert "step 1/2" in capsys.readouterr().out


def test_the_committed_tokenizer_is_the_one_the_script_trains():
    committed = load(EMBEDDED, device="cpu", dtype="float32").tokenizer
    assert train_tokenizer(1).get_vocab() == committed.get_vocab()


def test_running_the_shared_beginning_once_is_exact():
    """Against whole rows: the loss of the target tokens is the same."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(1, pairs_per_task=300)
    model = build_model(len(tokenizer))
    pairs = [pair for pair, _ in islice(population_pairs(TASKS["LaMP_3"], 5), 4)]
    batch = _collate(pairs, tokenizer)
    assert batch.shared.shape[1] > 10
    with torch.no_grad():
        _, fast = _loss(model, batch)
        losses = []
        for pair in pairs:
            prompt = [1, *tokenizer(pair.prompt)["input_ids"]]
            row = torch.tensor([[*prompt, *tokenizer(pair.target)["input_ids"], 2]])
            with torch.autocast("cpu", torch.bfloat16):
                logs = model(input_ids=row).logits[0].float().log_softmax(-1)
            losses += [-logs[i - 1, row[0, i]].item() for i in range(len(prompt), row.shape[1])]
    assert abs(fast - sum(losses) / len(losses)) < 0.02
