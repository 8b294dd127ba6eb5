import pytest

from fedperfit.protocol.messages.settings import EvaluationSettings, PersonalSettings, TrainingSettings
from fedperfit.protocol.settings.names import key_of
from fedperfit.protocol.system.errors import InputError

GOOD = [
    TrainingSettings(
        seed=7,
        epochs=4,
        batch_size=8,
        learning_rate=1e-4,
        weight_decay=1e-2,
        clip_norm=0.3,
        max_items=0,
        prompt_form="oppu",
    ),
    PersonalSettings(rank=4, additive=True, slot="history-16"),
    EvaluationSettings(stage="personal", slot="full", additive=False, batch_size=16, prompt_form="lamp"),
]
FIELDS = [(settings, field) for settings in GOOD for field in type(settings).model_fields]
ids = [f"{type(settings).__name__}.{field}" for settings, field in FIELDS]


@pytest.mark.parametrize("settings", GOOD)
def test_round_trip_beside_other_keys(settings):
    config = settings.to_config()
    assert all(type(value) in (bool, int, float, str) and "_" not in key for key, value in config.items())
    assert type(settings).from_config({**config, "action": "train", "server-round": 3}) == settings


@pytest.mark.parametrize(("settings", "field"), FIELDS, ids=ids)
def test_missing_key_is_named(settings, field):
    config = settings.to_config()
    key = key_of(field)
    del config[key]
    with pytest.raises(InputError, match=f"settings lack '{key}'"):
        type(settings).from_config(config)


@pytest.mark.parametrize(("settings", "field"), FIELDS, ids=ids)
@pytest.mark.parametrize("value", [True, 1, 1.5, "x", b"x", None, [1], {}], ids=repr)
def test_wrong_type_is_named(settings, field, value):
    right = type(getattr(settings, field))
    if type(value) is right or (right is float and type(value) is int) or (field == "slot" and value == "x"):
        return
    key = key_of(field)
    with pytest.raises(InputError, match=f"{key}=.*: expected "):
        type(settings).from_config({**settings.to_config(), key: value})


def test_whole_number_is_taken_for_a_float():
    settings = TrainingSettings.from_config({**GOOD[0].to_config(), "clip-norm": 1})
    assert type(settings.clip_norm) is float


NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = [
    *((GOOD[0], "epochs", value) for value in (0, -1)),
    *((GOOD[0], "batch_size", value) for value in (0, -1)),
    *((GOOD[0], "learning_rate", value) for value in (0.0, -1.0, NAN, INF)),
    *((GOOD[0], "clip_norm", value) for value in (0.0, -1.0, NAN, INF)),
    *((GOOD[0], "weight_decay", value) for value in (-0.1, 1.0, NAN, INF)),
    *((GOOD[0], "max_items", value) for value in (-1,)),
    *((GOOD[0], "prompt_form", value) for value in ("", "LAMP", "story")),
    *((GOOD[1], "rank", value) for value in (0, -1)),
    *((GOOD[1], "slot", value) for value in ("", "..", "a/b", "a b", "ä", "²", "a\n", "x" * 65)),
    *((GOOD[2], "stage", value) for value in ("", "Base", "release")),
    *((GOOD[2], "batch_size", value) for value in (0, -1)),
    *((GOOD[2], "prompt_form", value) for value in ("", "story")),
]


@pytest.mark.parametrize(("settings", "name", "value"), OUT_OF_RANGE)
def test_out_of_range_is_one_line_naming_the_setting(settings, name, value):
    with pytest.raises(InputError, match=f"{key_of(name)}=") as caught:
        settings.replace(**{name: value})
    assert "\n" not in str(caught.value)
