from collections.abc import Callable

import pytest

from fedperfit.edge.cli import main as cli
from fedperfit.protocol.messages.settings import PersonalSettings, TrainingSettings
from fedperfit.protocol.model.base_model import EMBEDDED, BaseModel, load
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape


@pytest.fixture(scope="session")
def base() -> BaseModel:
    return load(EMBEDDED, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def precise() -> BaseModel:
    """The tiny model in fp64, where rounding cannot hide a mistake."""
    loaded = load(EMBEDDED, device="cpu", dtype="float32")
    return BaseModel(loaded.model.double(), loaded.tokenizer, loaded.card)


@pytest.fixture(scope="session")
def shape(base: BaseModel) -> ShiftShape:
    return ShiftShape(
        layers=(3, 4), rank=4, hidden_size=base.card.hidden_size, positions=Positions.parse("l7")
    )


@pytest.fixture(scope="session")
def header(base: BaseModel, shape: ShiftShape) -> ShiftHeader:
    return ShiftHeader(shape=shape, task="LaMP_2M", fingerprint=base.card.fingerprint, round=0)


@pytest.fixture(scope="session")
def training() -> TrainingSettings:
    return TrainingSettings(
        seed=0,
        epochs=2,
        batch_size=8,
        learning_rate=5e-3,
        weight_decay=0.01,
        clip_norm=1.0,
        max_items=0,
        prompt_form="lamp",
    )


@pytest.fixture
def personal() -> PersonalSettings:
    return PersonalSettings(rank=4, additive=False, slot="full")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Runs a command of the owner's; its exit code and what it said."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["fedperfit-edge", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out + said.err

    return run
