"""What every group of settings states, and how a mistake in one is told: one line, with the nearest name."""

from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from fedperfit.protocol.fitting import FittingSettings
from fedperfit.protocol.settings.assignments import parse_assignments, parse_options
from fedperfit.protocol.settings.base import Settings
from fedperfit.protocol.settings.describe import described
from fedperfit.protocol.settings.fields import Device
from fedperfit.protocol.settings.rules import Repeatable, Unit
from fedperfit.protocol.system.errors import InputError


class Sample(Settings):
    """Settings of every type."""

    steps: Annotated[int, Field(ge=1, le=9), Unit("steps")] = 3
    """Number of steps."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.5
    layers: list[Annotated[int, Field(ge=0)]] | Literal["auto"] = "auto"
    names: Annotated[list[str], Field(min_length=1)] = ["a"]  # noqa: RUF012 - pydantic copies it
    rule: Literal["mean", "median", "krum"] = "mean"
    place: str = "here"
    fast: bool = False
    dealt: Annotated[list[str], Repeatable()] = []  # noqa: RUF012


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"steps": 0}, "steps=0: expected a whole number of at least 1 and at most 9"),
        ({"steps": "3"}, "steps='3': expected a whole number of at least 1 and at most 9"),
        ({"steps": True}, "steps=True: expected a whole number of at least 1 and at most 9"),
        ({"learning-rate": 0.0}, "learning-rate=0.0: expected a number above 0"),
        ({"learning_rate": float("inf")}, "learning-rate=inf: expected a number above 0"),
        ({"layers": [1, -1]}, "layers=[1, -1]: expected a list, each a whole number of at least 0 or auto"),
        ({"layers": [1, 2, 1]}, "layers=1,2,1: each once"),
        ({"names": ["b", "b"]}, "names=b,b: each once"),
        ({"names": []}, "names=[]: expected a list of at least one, each a text"),
        ({"rule": "medan"}, "rule='medan': expected one of mean, median, krum; the nearest is median"),
        ({"fast": 1}, "fast=1: expected true or false"),
        ({"place": None}, "place=None: expected a text"),
        ({"setps": 3}, "unknown setting 'setps': the nearest is 'steps'; `fedperfit settings` lists all"),
    ],
)
def test_a_mistake_is_one_line_with_key_value_and_rule(values, line):
    with pytest.raises(InputError) as caught:
        Sample.from_flat(values)
    assert str(caught.value) == line


def test_entries_repeat_only_where_that_means_something():
    assert Sample(dealt=["a", "a"]).dealt == ["a", "a"]


@given(st.text() | st.binary() | st.floats(allow_nan=True) | st.lists(st.integers()) | st.none())
def test_whatever_is_given_the_error_is_one_printable_line(value):
    for key in Sample.setting_keys():
        told = _told({key: value})
        assert not told or (told.startswith(f"{key}=") and len(told.splitlines()) == 1)


def _told(values):
    """The error that some values are refused with; empty where they are taken."""
    try:
        Sample.from_flat(values)
    except InputError as error:
        return str(error)
    return ""


def test_values_are_spelled_alike_on_every_command_line():
    texts = ["steps=4", "learning-rate=1", "layers=3,4", "names=x, y", "rule=krum", "place=3", "fast=true"]
    values = parse_assignments(Sample, texts)
    assert values == {
        **{"steps": 4, "learning-rate": 1, "layers": [3, 4], "names": ["x", "y"]},
        **{"rule": "krum", "place": "3", "fast": True},
    }
    assert Sample.from_flat(values).learning_rate == 1.0
    assert parse_assignments(Sample, ["layers=auto", "names=none"]) == {"layers": "auto", "names": []}
    assert parse_options(Sample, {"learning_rate": None, "names": "a,b", "steps": 2}) == {
        "names": ["a", "b"],
        "steps": 2,
    }
    with pytest.raises(InputError, match="the nearest is 'steps'"):
        parse_assignments(Sample, ["step=3"])


@pytest.mark.parametrize(("text", "value"), [(".25", 0.25), ("3.", 3.0), ("-.5", -0.5), (".5e-1", 0.05)])
def test_a_number_needs_no_digit_on_both_sides_of_its_point(text, value):
    assert parse_assignments(Sample, [f"learning-rate={text}"]) == {"learning-rate": value}


@pytest.mark.parametrize("text", [".", "1.2.3", ".e3", "x.5", "9" * 5000, "[" * 5000])
def test_what_is_no_number_stays_text(text):
    assert parse_assignments(Sample, [f"learning-rate={text}", f"place={text}"]) == {
        "learning-rate": text,
        "place": text,
    }


def test_a_copy_is_checked_and_the_original_stays():
    settings = Sample()
    assert (settings.replace(steps=5).steps, settings.steps) == (5, 3)
    with pytest.raises(InputError, match="steps=0"):
        settings.replace(steps=0)


def test_a_setting_describes_itself():
    steps = described(Sample)[0]
    assert (steps.key, steps.meaning, steps.unit, steps.default) == ("steps", "Number of steps.", "steps", 3)
    assert steps.bounds == (("ge", "le"),)


def test_an_edge_reads_its_part_of_a_preset():
    settings = FittingSettings.of_preset("quickstart", {"personal-epochs": 2})
    training = settings.personal_training()
    assert (training.epochs, training.learning_rate, training.clip_norm) == (2, 1e-2, 1.0)
    assert settings.personal().rank == 4
    with pytest.raises(InputError, match="the nearest is quickstart"):
        FittingSettings.of_preset("quikstart")


class _OnDevice(Settings):
    """Settings of something that runs a model."""

    device: Device


@pytest.mark.parametrize("name", ["gpu", "gpu9", "cuda9", "cuda:", "CUDA", "", "cuda:-1", "auto:0"])
def test_a_device_that_is_none_is_refused_before_torch_is_loaded(name):
    with pytest.raises(InputError, match="expected auto, cpu, cuda"):
        _OnDevice.from_flat({"device": name})


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:15", "mps"])
def test_a_device_of_torchs_is_taken(name):
    assert _OnDevice.from_flat({"device": name}).device == name
