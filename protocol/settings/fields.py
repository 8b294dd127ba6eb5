"""Settings that several groups have: type, bounds, unit and meaning, stated once."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedperfit.protocol.settings.rules import Unit
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.tasks import TASKS, PromptForm, task_by_name
from fedperfit.protocol.tasks.metrics import own_metrics

Auto = Literal["auto"]
AUTO: Auto = "auto"
_DEVICE = re.compile(r"auto|(cpu|cuda|mps|xpu|hpu|npu|xla|mtia|ipu|maia|meta|privateuseone)(:[0-9]{1,3})?")
"""Names of devices, which torch would tell only once it is loaded, in seconds."""


def _task(name: str) -> str:
    return task_by_name(name).reference


def _deployed(name: str) -> str:
    task = task_by_name(name)
    for metric in own_metrics(task.metrics):
        raise InputError(f"task {task.id}: metric {metric} is a function, which simulations alone run")
    return task.reference


def _travelling(name: str) -> str:
    """Check a task that another machine names: by a name that ships or a text, never by a file here."""
    if "\n" not in name and name not in TASKS:
        raise InputError(f"task={name[:80]!r}: neither a task that ships nor the text of a task's file")
    return _deployed(name)


def _positions(text: str) -> str:
    Positions.parse(text)
    return text


def _device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        raise InputError(
            f"device={name!r}: expected auto, cpu, cuda, cuda:0, … or another of torch's devices"
        )
    return name


TaskName = Annotated[
    str,
    AfterValidator(_task),
    Unit("name or TOML file"),
    Field(description="Task: one that ships, e.g. LaMP_2M, or a TOML file."),
]
DeployedTask = Annotated[
    str,
    AfterValidator(_deployed),
    Unit("name or TOML file"),
    Field(description="Task: one that ships, e.g. LaMP_2M, or a TOML file; its metrics by name."),
]
TravellingTask = Annotated[
    str,
    AfterValidator(_travelling),
    Unit("name or text of a file"),
    Field(description="Task that is agreed on: one that ships, or the text of a task's file."),
]
TaskNames = Annotated[
    list[Annotated[str, AfterValidator(_task)]],
    Unit("names or TOML files"),
    Field(min_length=1, description="Tasks by name or TOML file, each with a part of its own in the report."),
]
BaseModelName = Annotated[
    str,
    Unit("folder or hub name"),
    Field(
        description="Base model: a folder, a GGUF file, a hub name, `smollm2` (an instruct model of 135 M "
        "parameters), or `embedded`, the model that ships."
    ),
]
PromptStyle = Annotated[
    PromptForm,
    Field(
        strict=False,
        description="Form of the prompts: `lamp`, the benchmark's questions; `oppu`, for large models; or "
        "`chat`, the chat template of an instruct model.",
    ),
]
PromptPositions = Annotated[
    str,
    AfterValidator(_positions),
    Unit("prompt tokens"),
    Field(description="Shifted prompt positions: `f7+l7` is the first seven tokens and the last seven."),
]
Device = Annotated[
    str,
    AfterValidator(_device),
    Unit("torch device"),
    Field(description="Where the model runs: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:0`, …"),
]
ModelType = Annotated[
    Literal["auto", "float32", "bfloat16"],
    Field(description="Number format of the base model; `auto` is bfloat16 on CUDA and float32 on a CPU."),
]
UpdateBasis = Annotated[
    Literal["none", "random", "public", "learned", "federated"],
    Field(
        description="Frozen basis in which updates of the collective shift are coordinates: `none` sends "
        "whole shifts; `random` is drawn from the seed; `public` follows gradients and states of public "
        "items; `learned` is learned from public people, jointly with what sets them apart; `federated` "
        "follows the mean gradients that the clients of a simulation send once."
    ),
]
GivesWay = Annotated[
    Literal["items", "loss"],
    Field(
        description="How people with more than `prior-items` items are fitted: `items` freely; `loss` under "
        "the prior, or freely where that clearly answers a fifth of their items better, held out of both."
    ),
]
TransportType = Annotated[
    Literal["float32", "bfloat16", "int8", "int4", "sign"],
    Field(
        description="Number format in which collective shifts travel; `int8`, `int4` and `sign` (one bit) "
        "are for updates in an `update-basis`."
    ),
]
WHOLE_SHIFTS: tuple[str, ...] = ("float32", "bfloat16")
"""Number formats in which a whole shift can travel, and is released."""
BasisDigest = Annotated[
    str, Field(pattern=r"^[0-9a-f]{64}\z", description="Digest of an update basis."), Unit("SHA-256")
]
CacheSize = Annotated[
    float,
    Field(
        ge=-1,
        description="Memory of a process for what the base model makes of items; 0 keeps nothing, -1 is a "
        "quarter of the machine's.",
    ),
    Unit("GiB"),
]
ProcessMemory = Annotated[
    float,
    Field(ge=0, description="Most memory of each process, on Linux; 0 is four fifths of the machine's."),
    Unit("GiB"),
]
Encoder = Annotated[
    str,
    Unit("folder or hub name"),
    Field(description="Sentence encoder that selects items for directions; empty: the base model does."),
]
Seed = Annotated[
    int,
    Field(ge=0, description="Start of every random draw."),
    Unit("number"),
]
Epochs = Annotated[int, Field(ge=1), Unit("passes over the items")]
LearningRate = Annotated[float, Field(gt=0), Unit("per step")]
Items = Annotated[int, Field(ge=0), Unit("items")]
Rank = Annotated[int, Field(ge=1), Unit("dimensions")]
BatchSize = Annotated[int, Field(ge=1, description="Items of one person in a training step."), Unit("items")]
AnswerBatch = Annotated[int, Field(ge=1, description="Questions answered side by side."), Unit("questions")]
WeightDecay = Annotated[
    float,
    Field(ge=0, lt=1, description="Decoupled weight decay on W and b; R has none."),
    Unit("share per unit of learning rate"),
]
ClipNorm = Annotated[
    float,
    Field(gt=0, description="Largest norm of the whole gradient."),
    Unit("norm"),
]
Additive = Annotated[
    bool,
    Field(
        description="Add the two shifts' deltas instead of applying the personal shift after the collective."
    ),
]
