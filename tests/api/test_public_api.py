"""The public API: what it costs to import, what it holds, and that the snippet of the docs runs."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fedperfit

ITEMS = [
    {"id": str(n), "description": f"{plot} and a {mood} end", "tag": tag}
    for n, (plot, mood, tag) in enumerate(
        [
            ("a robot learns to dream", "quiet", "sci-fi"),
            ("two rivals share a kitchen", "merry", "comedy"),
            ("a heist in the old harbour", "loud", "action"),
            ("a ship lost between stars", "cold", "sci-fi"),
        ]
        * 3
    )
]


def history(name: str) -> fedperfit.History:
    return fedperfit.History(name=name, task=fedperfit.task_by_name("LaMP_2M"), items=ITEMS)


def shape(rank: int = 4) -> fedperfit.ShiftShape:
    return fedperfit.ShiftShape(
        layers=(3, 4), rank=rank, hidden_size=192, positions=fedperfit.Positions.parse("l7")
    )


@pytest.fixture(scope="module")
def base() -> fedperfit.BaseModel:
    return fedperfit.load("embedded")


def test_importing_takes_neither_torch_nor_flower() -> None:
    heavy = {"torch", "flwr", "transformers", "numpy"}
    code = f"import sys, fedperfit; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_the_systems_own_and_documented() -> None:
    assert len(set(fedperfit.__all__)) == len(fedperfit.__all__)
    assert set(fedperfit.__all__) == set(fedperfit._HOMES)
    for name in fedperfit.__all__:
        value = getattr(fedperfit, name)
        home = importlib.import_module(f"fedperfit.{fedperfit._HOMES[name]}")
        assert getattr(home, name) is value
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__ == home.__name__, name
            assert len(inspect.getdoc(value).split()) > 3, name
            methods = [n for n, member in vars(value).items() if inspect.isfunction(member)]
            public = [method for method in methods if not method.startswith("_")]
            assert all(inspect.getdoc(getattr(value, method)) for method in public), name


def test_type_checkers_see_the_names_that_are_there() -> None:
    source = Path(fedperfit.__file__).read_text(encoding="utf-8")
    block = source.split("if TYPE_CHECKING:")[1].split("_ROOMS")[0]
    assert {name for name in fedperfit.__all__ if name in block} == set(fedperfit.__all__)
    assert set(dir(fedperfit)) >= set(fedperfit.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = fedperfit.nothing  # type: ignore[attr-defined]


def test_fitting_lowers_the_loss_and_changes_answers_as_the_history_says(base: fedperfit.BaseModel) -> None:
    person = history("ada")
    _, once = fedperfit.fit_personal_shift(
        base,
        person,
        shape(),
        settings=fedperfit.PERSONAL_TRAINING.replace(epochs=1),
    )
    personal, fitted = fedperfit.fit_personal_shift(base, person, shape(), start=0)
    assert fitted.loss < once.loss
    assert isinstance(personal, fedperfit.PersonalShift)
    assert not personal.R.requires_grad
    questions = [person.task.instruction + item["description"] for item in ITEMS[:4]]
    bare = fedperfit.answer_questions(base, person.task, questions)
    own = fedperfit.answer_questions(base, person.task, questions, [personal])
    golds = [item["tag"] for item in ITEMS[:4]]
    right = [sum(a == g for a, g in zip(answers, golds, strict=True)) for answers in (bare, own)]
    assert right[1] > right[0]


def test_a_start_from_the_operating_system_differs_from_fit_to_fit(base: fedperfit.BaseModel) -> None:
    first, second = (fedperfit.fit_personal_shift(base, history("ada"), shape())[0] for _ in range(2))
    assert not torch.equal(first.R, second.R)


def test_the_identity_changes_no_answer_and_no_text(base: fedperfit.BaseModel) -> None:
    person = history("ada")
    questions = [person.task.instruction + item["description"] for item in ITEMS[:4]]
    identity = fedperfit.Shift.identity(shape(), seed=0)
    assert fedperfit.answer_questions(base, person.task, questions, [identity]) == fedperfit.answer_questions(
        base, person.task, questions
    )
    sampling = fedperfit.Sampling(max_new_tokens=8)
    prompt = "tag the movie: a robot"
    assert fedperfit.generate_text(base, prompt, [identity], sampling=sampling) == fedperfit.generate_text(
        base, prompt, sampling=sampling
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": (3, 40)}, "beyond the base model"),
        ({"hidden_size": 64}, "the base model has 192"),
    ],
)
def test_a_shape_that_does_not_suit_the_model_is_one_line(
    base: fedperfit.BaseModel, change: dict[str, object], words: str
) -> None:
    wrong = fedperfit.ShiftShape(**{**vars(shape()), **change})  # type: ignore[arg-type]
    with pytest.raises(fedperfit.InputError, match=words):
        fedperfit.fit_personal_shift(base, history("ada"), wrong)


def test_a_history_without_items_cannot_be_fitted(base: fedperfit.BaseModel) -> None:
    empty = fedperfit.History(name="ada", task=fedperfit.task_by_name("LaMP_2M"), items=[])
    with pytest.raises(fedperfit.InputError, match="no history"):
        fedperfit.fit_personal_shift(base, empty, shape())


def test_programs_can_tell_a_missing_file_from_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(fedperfit.MissingFileError):
        fedperfit.read_release(tmp_path / "nowhere.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not a release")
    with pytest.raises(fedperfit.MalformedFileError, match="truncated"):
        fedperfit.read_release(broken)
    with pytest.raises(fedperfit.MissingFileError):
        fedperfit.load(str(tmp_path / "no-model"))
    with pytest.raises(fedperfit.MissingFileError):
        fedperfit.read_history(tmp_path)


def test_programs_can_tell_a_bad_setting() -> None:
    with pytest.raises(fedperfit.SettingError, match="rounds"):
        fedperfit.run_federation([history("bob")], settings={"rounds": 0})
    with pytest.raises(fedperfit.SettingError, match="the nearest is 'rounds'"):
        fedperfit.run_federation([history("bob")], settings={"round": 1})


def test_ten_lines_take_a_federation_to_personal_answers(tmp_path: Path) -> None:
    task, person = fedperfit.task_by_name("LaMP_2M"), history("ada")
    base = fedperfit.load("embedded")
    result = fedperfit.run_federation([history("bob"), history("eve")], settings={"rounds": 1})
    key = fedperfit.SigningKey()
    (tmp_path / "release").write_bytes(fedperfit.Release.first(result.shift, result.header, key).to_bytes())
    release = fedperfit.read_release(tmp_path / "release")
    release.check_signed_from(key.public)
    personal, fitted = fedperfit.fit_personal_shift(base, person, shape(), collective=release.shift)
    questions = [task.instruction + item["description"] for item in ITEMS]
    answers = fedperfit.answer_questions(base, task, questions, [release.shift, personal])
    assert len(answers) == len(ITEMS)
    assert set(answers) <= set(task.labels)
    assert fitted.items == len(ITEMS)
