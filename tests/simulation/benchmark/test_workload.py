import pytest
from tests.simulation.benchmark.benchmark_cases import LENGTHS, tiny_base, tiny_workload

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS
from fedperfit.simulation.benchmark import workload as workloads
from fedperfit.simulation.benchmark.model import ModelSpec, make_base
from fedperfit.simulation.benchmark.workload import Lengths, Workload, batches, make_examples


def test_every_task_of_lamp_has_lengths_and_a_preset() -> None:
    for task in (name for name in TASKS if name.startswith("LaMP_")):
        workload = Workload.of_task(task, users=1, items=16)
        assert workload.settings.task == task
        assert workload.settings.prompt_form == "oppu"
        assert workload.steps == 2 * workload.settings.personal_epochs


def test_examples_have_the_stated_lengths_and_share_their_beginning() -> None:
    base, workload = tiny_base(), tiny_workload()
    users = list(make_examples(base, workload))
    assert [len(items) for items in users] == [6, 6]
    rows = [item for items in users for item in items]
    assert {(len(row.prompt), len(row.target)) for row in rows} == {(LENGTHS.prompt, LENGTHS.target)}
    assert len({row.prompt[: LENGTHS.shared] for row in rows}) == 1
    assert len({row.prompt[LENGTHS.shared :] for row in rows}) == len(rows)
    end = base.tokenizer.eos_token_id
    assert all(row.target[-1] == end for row in rows)
    special = set(base.tokenizer.all_special_ids)
    assert not any(special & {*row.prompt, *row.target[:-1]} for row in rows)
    assert list(make_examples(base, workload)) == users
    assert list(make_examples(base, tiny_workload(seed=1))) != users


def test_batches_hold_every_item_once_per_epoch() -> None:
    workload = tiny_workload(personal_epochs=3)
    (examples, _) = make_examples(tiny_base(), workload)
    made = list(batches(examples, workload, user=0))
    assert [len(batch) for batch in made] == [4, 2] * 3
    assert len(made) == workload.steps
    assert {row for batch in made[:2] for row in batch} == set(examples)
    assert made[:2] != made[2:4]


def test_mistakes_are_one_line() -> None:
    with pytest.raises(InputError, match="unknown task 'LaMP_9'"):
        Workload.of_task("LaMP_9", users=1, items=1)
    with pytest.raises(InputError, match="users=0"):
        tiny_workload(users=0)
    with pytest.raises(InputError, match="target=1"):
        Lengths(shared=1, field=1, target=1)
    with pytest.raises(InputError, match="heads=3"):
        ModelSpec(hidden_size=32, heads=3)


def test_items_longer_than_the_context_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base()
    base.model.config.max_position_embeddings = 20
    with pytest.raises(InputError, match="23 tokens"):
        make_examples(base, tiny_workload())


def test_the_model_does_not_depend_on_the_callers_generator() -> None:
    first = make_base(ModelSpec(layers=1, hidden_size=16, heads=2, vocabulary=16, device="cpu"))
    second = make_base(ModelSpec(layers=1, hidden_size=16, heads=2, vocabulary=16, device="cpu"))
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(a.equal(b) and not a.requires_grad for a, b in pairs)
    assert first.card.parameters == sum(p.numel() for p in first.model.parameters())
    assert workloads.PRESETS.keys() == workloads.LENGTHS.keys()
