"""Single methods against slower or simpler ones."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.protocol.encoder_decoders import save_with_words
from tests.simulation.compare.small_comparison import started

from fedperfit.edge.engine.training import FitJob, fit
from fedperfit.protocol.shift.packing import ShiftHeader, pack
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS, PromptForm
from fedperfit.simulation.compare.building_blocks import adapters
from fedperfit.simulation.compare.building_blocks.shifts import settings, shape
from fedperfit.simulation.compare.cells import WorkerState
from fedperfit.simulation.compare.context import MethodContext
from fedperfit.simulation.compare.method import lineage, registry
from fedperfit.simulation.compare.methods import style_vector
from fedperfit.simulation.compare.search import drawn

pytestmark = pytest.mark.slow  # for what its tests share, whichever comes first

METHODS = registry()
LORA = {"rank": 4, "epochs": 1, "learning-rate": 3e-3}
OWN = {"personal-rank": 4, "personal-epochs": 2, "personal-learning-rate": 5e-3}
SHIFT = {"layers": "middle", "positions": "l7", "rank": 4, "epochs": 1, "learning-rate": 5e-3}


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> WorkerState:
    return started(tmp_path_factory.mktemp("methods") / "run", world_history=12, base_model="embedded")


def test_a_merged_adapter_answers_as_a_wrapped_one(context, people):
    modules = adapters.targets(context.base, collective=True)
    pairs = context.pairs(people.others[0])
    adapter = adapters.fit_adapter(
        context, pairs, rank=4, modules=modules, epochs=3, learning_rate=1e-2, name="x"
    )
    assert sum(tensor.numel() for tensor in adapter.values()) == 8 * 4 * 3 * 2 * 192
    prompts = [context.prompt(question) for target in people.targets for question in target.questions]
    wrapped = adapters.answer(context, adapter, prompts, rank=4, modules=modules)
    merged = adapters.merged(context, adapter, rank=4, modules=modules)
    assert merged.answer(prompts) == wrapped
    assert wrapped != context.answer(prompts)
    ids = torch.arange(3, 40)[None]
    with adapters.wrapped(context.base, 4, modules) as model:
        adapters.required("peft").set_peft_model_state_dict(model, adapter)
        model.eval()
        expected = context.base.model(ids).logits
    torch.testing.assert_close(merged.base.model(ids).logits, expected, rtol=0, atol=2e-4)
    assert not torch.allclose(context.base.model(ids).logits, expected, atol=1e-2)


def test_oppu_starts_from_the_tasks_lora(context, people):
    oppu, task = METHODS["oppu"](context, LORA | OWN), METHODS["lora-c"](context, LORA)
    for method in (oppu, task):
        method.learn(people.others)
    empty = replace(people.targets[0].history, items=[])
    questions = people.targets[0].questions
    assert oppu.answer(oppu.fit(empty), questions) == task.answer(task.fit(empty), questions)
    fitted = oppu.fit(people.targets[0].history)
    assert oppu.parameters(fitted) == 8 * 4 * 2 * 2 * 192
    assert oppu.bytes_down() == task.bytes_down() > 4 * 8 * 4 * 3 * 2 * 192


def test_perfit_is_its_stages(context, people):
    """Without history it is stage 1; with it, the personal shift acts on top of the collective one."""
    full = METHODS["perfit"](context, SHIFT | OWN)
    first = METHODS["perfit-stage1"](context, SHIFT)
    for method in (full, first):
        method.learn(people.others)
    assert pack(full.shared, _header(full)) == pack(first.shared, _header(first))  # type: ignore[attr-defined]
    target = people.targets[0]
    empty = replace(target.history, items=[])
    assert full.answer(full.fit(empty), target.questions) == first.answer(
        first.fit(target.history), target.questions
    )
    fitted = full.fit(target.history)
    assert full.parameters(fitted) == 2 * (2 * 4 * 192 + 4)
    assert len(full.context.pairs(target.history)) == 12


def test_a_federation_of_equal_clients_is_one_of_them(context, people):
    """After one round the federation's shift is that of each client's own training."""
    values = SHIFT | OWN | {"rounds": 1, "federated-learning-rate": 5e-3}
    one = replace(people.others[0], answered=[])
    shifts = []
    for others in ([one], [one, one]):
        method = METHODS["perfit-federated"](context, values)
        method.learn(others)
        shifts.append(method.shared)  # type: ignore[attr-defined]
    history = context.collective_histories([one])[0]
    alone = Shift.identity(shape(context, "middle", 4, "l7"), seed=context.number("collective", "start"))
    job = FitJob(alone, context.encode(context.pairs(history)), f"0/{one.name}/0")
    fit([job], settings(context, 1, 5e-3), context.items)
    hidden = torch.randn(5, 192, generator=torch.Generator().manual_seed(0))
    for shift in shifts:
        for index in range(2):
            close = {"rtol": 1e-3, "atol": 1e-4}
            torch.testing.assert_close(shift.delta(index, hidden), alone.delta(index, hidden), **close)


def _header(method):
    return ShiftHeader(method.shared.shape, "LaMP_2M", method.context.base.card.fingerprint, 1)


def test_the_ablations_have_the_papers_ranks(context, people):
    values = SHIFT | OWN | {"own-epochs": 1, "own-learning-rate": 1e-3, "rank": 8, "personal-rank": 2}
    history = people.targets[0].history
    for name, rank in (("perfit-stage2-p", 2), ("perfit-stage2-cp", 10)):
        method = METHODS[name](context, values)
        method.learn(people.others)
        assert method.parameters(method.fit(history)) == 2 * (2 * rank * 192 + rank)
        assert method.bytes_down() == 0


def test_a_collective_part_is_made_once(context, people, monkeypatch):
    made = []
    keep = MethodContext.keep

    def counting(self, name, about, make):
        return keep(self, name, about, lambda: made.append(name) or make())

    monkeypatch.setattr(MethodContext, "keep", counting)
    values = SHIFT | {"rank": 7}
    for name in ("perfit-stage1", "perfit"):
        method = METHODS[name](context, values | OWN)
        method.learn(people.others)
    assert made == ["collective/shift"]
    method.learn(people.others[:2])
    replaced = METHODS["perfit-stage1"](replace(context, seed=1), values)
    replaced.learn(people.others)
    assert made == ["collective/shift"] * 3


def test_a_style_vector_of_no_strength_changes_nothing(context, people):
    target = people.targets[0]
    expected = context.answer([context.prompt(question) for question in target.questions])
    answers = []
    for alpha in (0.0, 40.0):
        method = METHODS["style-vector"](context, {"layer": 0.5, "alpha": alpha, "items": 8})
        answers.append(method.answer(method.fit(target.history), target.questions))
    assert answers[0] == expected
    assert answers[1] != expected


def test_a_style_vector_acts_the_same_with_the_prompt_run_once(context, monkeypatch):
    method = METHODS["style-vector"](context, {"layer": 0.5, "alpha": 1.0, "items": 8})
    generator = torch.Generator().manual_seed(0)
    for length in range(4, 44):
        vector = 3 * torch.randn(192, generator=generator)
        prompt = tuple(torch.randint(5, 2000, (length,), generator=generator).tolist())
        fast = method._scores(vector, prompt)  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(style_vector, "forgets", lambda base, tokens: True)
            assert fast.allclose(method._scores(vector, prompt), atol=1e-3)  # type: ignore[attr-defined]


def test_the_style_vector_is_the_mean_difference_at_the_answers_last_token(context, people):
    """Against one row at a time, with the tokenizer's own words."""
    method = METHODS["style-vector"](context, {"layer": 0.5, "alpha": 1.0, "items": 3})
    history = people.targets[0].history
    pairs = context.pairs(history)[-3:]
    answers = context.answer([pair.prompt for pair in pairs])
    tokenizer, model = context.base.tokenizer, context.base.model

    def last(prompt: str, text: str) -> torch.Tensor:
        ids = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        for part in (prompt, text):
            ids += tokenizer(part, add_special_tokens=False)["input_ids"]
        return model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[5][0, -1]

    expected = torch.stack(
        [last(p.prompt, p.target) - last(p.prompt, a) for p, a in zip(pairs, answers, strict=True)]
    ).mean(0)
    torch.testing.assert_close(method.fit(history), expected, rtol=0, atol=1e-4)


def test_lofit_moves_the_chosen_heads_only(context, people):
    def hooks() -> int:
        return sum(len(module._forward_pre_hooks) for module in context.base.model.modules())

    before = hooks()
    values = {"share": 0.1, "epochs": 2, "learning-rate": 1e-2} | OWN
    method = METHODS["lofit"](context, values)
    method.learn(people.others)
    fitted = method.fit(people.targets[0].history)
    config = context.base.model.config
    heads = round(0.1 * config.num_hidden_layers * config.num_attention_heads)
    assert fitted.shape == (heads, 192 // config.num_attention_heads)
    spread = method._spread(fitted)  # type: ignore[attr-defined]
    assert int((spread.abs().sum(-1) > 0).sum()) == heads
    questions = people.targets[0].questions
    plain = context.answer([context.prompt(question) for question in questions])
    assert method.answer(torch.zeros_like(fitted), questions) == plain
    assert method.answer(None, questions) == plain
    assert method.answer(5 * torch.ones_like(fitted), questions) != plain
    assert hooks() == before


def test_floors(context, people):
    history = people.targets[0].history
    tags = [item["tag"] for item in history.items]
    most = max(set(tags), key=lambda tag: (tags.count(tag), max(n for n, t in enumerate(tags) if t == tag)))
    user = METHODS["majority-user"](context, {})
    user.learn(people.others)
    assert user.answer(user.fit(history), ["a", "b"]) == [most, most]
    overall = METHODS["majority-global"](context, {})
    overall.learn(people.others)
    everyone = [pair.target for other in people.others for pair in context.pairs(other)]
    answer = overall.answer(overall.fit(history), ["a"])[0]
    assert everyone.count(answer) == max(map(everyone.count, everyone))
    assert user.answer(user.fit(replace(history, items=[])), ["a"]) == [answer]


def test_a_profile_is_written_by_the_model_once(context, people, monkeypatch):
    method = METHODS["pag"](context, {"items": 5})
    history = people.targets[0].history
    profile = method.fit(history)
    assert profile
    monkeypatch.setattr(type(method), "_write", lambda self, asked: pytest.fail("written again"))
    assert method.fit(history) == profile
    with pytest.raises(pytest.fail.Exception):
        METHODS["pag"](context, {"items": 10}).fit(history)
    assert method.fit(replace(history, items=[])) == ""


def test_lora_says_where_it_cannot_go():
    base = SimpleNamespace(model=torch.nn.Linear(2, 2), kind="Linear")
    with pytest.raises(InputError, match="no attention projections"):
        adapters.targets(base, collective=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].suits(TASKS["LaMP_4"])])
def test_every_method_writes_texts_too(tmp_path, name):
    """Headlines: generated, by whatever way a method answers."""
    state = started(tmp_path / "run", tasks=["LaMP_4"], methods=[name], users=1, base_model="embedded")
    context = state.context("LaMP_4", 0)
    people = state.participants("LaMP_4")
    values = {}
    for link in lineage(METHODS, name):
        values |= next(iter(drawn(METHODS[link], 1)), {})
    method = state.methods[name](context, values)
    method.learn(people.others)
    answers = method.answer(method.fit(people.targets[0].history), people.targets[0].questions)
    assert len(answers) == len(people.targets[0].questions)
    assert any(len(answer.split()) > 1 for answer in answers)


def test_methods_that_look_into_the_model_find_their_way_in_an_encoder_decoder_one(tmp_path):
    model = save_with_words(tmp_path / "t5")
    state = started(tmp_path / "run", methods=["style-vector", "lofit"], users=1, base_model=model)
    context, people = state.context("LaMP_2M", 0), state.participants("LaMP_2M")
    target, questions = people.targets[0], people.targets[0].questions
    plain = context.answer([context.prompt(question) for question in questions])
    styled = METHODS["style-vector"](context, {"layer": 0.5, "alpha": 0.0, "items": 3})
    assert styled.answer(styled.fit(target.history), questions) == plain
    heads = METHODS["lofit"](context, next(iter(drawn(METHODS["lofit"], 1))))
    heads.learn(people.others)
    assert set(heads.answer(heads.fit(target.history), questions)) <= set(context.task.labels)


def test_the_oppu_form_asks_with_its_cue(context):
    oppu = replace(context, form=PromptForm.OPPU)
    assert oppu.prompt(TASKS["LaMP_2M"].instruction + "a storm").endswith("tag:")
