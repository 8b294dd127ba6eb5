from importlib import resources

import pytest
import torch

from fedperfit.protocol.model.base_model import EMBEDDED, BaseModelCard, read_card
from fedperfit.protocol.presets import preset_names
from fedperfit.protocol.settings.assignments import parse_assignments
from fedperfit.protocol.shift.selection import SHARE, LayerGradient, least_rank
from fedperfit.protocol.system.errors import InputError
from fedperfit.simulation.run.settings import RunSettings

CARD = BaseModelCard("f", hidden_size=4096, layers=32, parameters=1, dtype="bfloat16", lora_qv=1)
PAPER = {
    "movie_tagging": ((14, 15), 32, 4),
    "news_categorize": ((14, 15, 16), 16, 32),
    "product_rating": ((14, 15, 16), 32, 4),
    "news_headline": ((14, 15, 16), 32, 4),
    "scholarly_title": ((14, 15), 16, 4),
    "tweet_paraphrase": ((14, 15), 32, 16),
}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_its_first_line_runs_it(name):
    settings = RunSettings.read(name)
    first = (resources.files("fedperfit.configs") / f"{name}.toml").read_text().splitlines()[0]
    assert first.startswith(f"# fedperfit simulate --preset {name}")
    assert RunSettings.from_flat(settings.to_flat()) == settings


@pytest.mark.parametrize("name", list(PAPER))
def test_paper_values(name):
    settings = RunSettings.read(name)
    layers, collective, personal = PAPER[name]
    shape = settings.shape(CARD)
    assert (shape.layers, shape.rank, settings.personal_rank) == (layers, collective, personal)
    training = settings.personal_training()
    assert (training.learning_rate, training.weight_decay, training.clip_norm) == (1e-4, 1e-2, 0.3)


def test_layers_scale_by_depth():
    settings = RunSettings.read("news_categorize", {"collective-rank": 4, "personal-rank": 4})
    shallow = BaseModelCard("f", hidden_size=64, layers=10, parameters=1, dtype="float32", lora_qv=1)
    assert settings.shape(shallow).layers == (4, 5)
    assert settings.shape(read_card(EMBEDDED)).layers == (4,)


def test_overrides_are_toml_values():
    values = parse_assignments(
        RunSettings, ["rounds=3", "task=LaMP_3", "layers=1,2", "additive=true", "positions=f7+l7", "data=3"]
    )
    assert values == {
        "rounds": 3,
        "task": "LaMP_3",
        "layers": [1, 2],
        "additive": True,
        "positions": "f7+l7",
        "data": "3",
    }
    with pytest.raises(InputError, match="key=value"):
        parse_assignments(RunSettings, ["rounds"])


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 0},
        {"rounds": "3"},
        {"rounds": True},
        {"layers": []},
        {"layers": [99]},
        {"targets": 0},
        {"history-lengths": [-1]},
        {"personal-learning-rate": 0.0},
        {"transport-dtype": "float16"},
        {"collective-rank": 0},
        {"directions-items": 3},
        {"directions-source": "history"},
        {"edited-layers": 0},
        {"unknown": 1},
        {"layers": "all"},
        {"collective-rank": "many"},
        {"personal-rank": True},
        {"warm-start": "yes"},
        {"warm-start": True, "collective-max-items": 3},
        {"warm-start": True, "collective-sizes": [1]},
        {"layers": "auto", "collective-max-items": 3},
    ],
)
def test_wrong_values_are_refused_in_one_line(change):
    with pytest.raises(InputError) as caught:
        RunSettings.read("quickstart", change).shape(CARD)
    assert "\n" not in str(caught.value)


OPEN = {"layers": "auto", "collective-rank": "auto", "personal-rank": "auto"}


@pytest.mark.parametrize("key", list(OPEN))
def test_what_is_still_to_be_chosen_is_told_in_one_line(key):
    settings = RunSettings.read("quickstart", {key: "auto"})
    assert settings.open
    with pytest.raises(InputError, match=f"{key}=auto: chosen in a run") as caught:
        settings.shape(CARD)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"), [("collective-rank", 4097), ("personal-rank", 4097), ("layers", [])]
)
def test_what_is_given_is_checked_whatever_will_be_chosen(key, value):
    RunSettings.read("quickstart", OPEN).check(CARD)
    with pytest.raises(InputError):
        RunSettings.read("quickstart", OPEN | {key: value}).check(CARD)


@pytest.mark.parametrize("key", ["collective-rank", "personal-rank"])
def test_a_rank_that_is_too_high_is_told_by_its_setting(key):
    with pytest.raises(InputError, match=f"^{key}=4097 is outside 1..4096, the hidden size$"):
        RunSettings.read("quickstart", {key: 4097}).check(CARD)


@pytest.mark.parametrize("given", [{}, {"layers": [3, 4]}, {"collective-rank": 8}, {"personal-rank": 2}])
def test_only_what_is_open_is_chosen(given):
    start = torch.Generator().manual_seed(0)
    layer_gradients = [
        LayerGradient(
            torch.randn(32, 8, generator=start) * torch.arange(1.0, 33.0)[:, None], torch.ones(32), 4
        )
        for _ in range(9)
    ]
    settings = RunSettings.read("quickstart", OPEN | given)
    chosen = settings.choose(layer_gradients, CARD)
    assert not set(given) & set(chosen)
    settled = settings.settled(chosen)
    assert not settled.open
    assert settled.shape(CARD).layers == ((12, 16) if "layers" in given else (30, 31))
    assert settled.shape(CARD).rank == given.get(
        "collective-rank", least_rank(layer_gradients, (30, 31), SHARE)
    )
    assert settled.personal().rank <= settled.shape(CARD).rank
    assert RunSettings.from_flat(settled.to_flat()) == settled


def test_a_release_that_nobody_could_read_is_told_before_training():
    layers = {"layers": list(range(8)), "layers-of": 32, "transport-dtype": "float32"}
    RunSettings.read("quickstart", {**layers, "collective-rank": 63}).check(CARD)
    large = RunSettings.read("quickstart", {**layers, "collective-rank": 64})
    with pytest.raises(InputError, match="MiB, at most 16 are read"):
        large.check(CARD)
