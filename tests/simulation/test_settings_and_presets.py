from importlib import resources

import pytest

from cloud.presets import parse_overrides, preset_names
from protocol.base_model import EMBEDDED, BaseModelCard, read_card
from protocol.errors import InputError
from simulation.settings import RunSettings

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
    first = (resources.files("configs") / f"{name}.toml").read_text().splitlines()[0]
    assert first.startswith(f"# fedperfit simulate --preset {name}")
    assert RunSettings.from_flat(settings.to_flat()) == settings


@pytest.mark.parametrize("name", list(PAPER))
def test_paper_values(name):
    settings = RunSettings.read(name)
    layers, collective, personal = PAPER[name]
    shape = settings.shape(CARD)
    assert (shape.layers, shape.rank, settings.personal_rank) == (layers, collective, personal)
    training = settings.training(personal=True)
    assert (training.learning_rate, training.weight_decay, training.clip_norm) == (1e-4, 1e-2, 0.3)


def test_layers_scale_by_depth():
    settings = RunSettings.read("news_categorize", {"collective-rank": 4, "personal-rank": 4})
    shallow = BaseModelCard("f", hidden_size=64, layers=10, parameters=1, dtype="float32", lora_qv=1)
    assert settings.shape(shallow).layers == (4, 5)
    assert settings.shape(read_card(EMBEDDED)).layers == (4,)


def test_overrides_are_toml_values():
    values = parse_overrides(["rounds=3", "task=LaMP_3", "layers=[1, 2]", "additive=true", "positions=f7+l7"])
    assert values == {
        "rounds": 3,
        "task": "LaMP_3",
        "layers": [1, 2],
        "additive": True,
        "positions": "f7+l7",
    }
    with pytest.raises(InputError, match="key=value"):
        parse_overrides(["rounds"])


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
    ],
)
def test_wrong_values_are_refused_in_one_line(change):
    with pytest.raises(InputError) as caught:
        RunSettings.read("quickstart", change).shape(CARD)
    assert "\n" not in str(caught.value)
