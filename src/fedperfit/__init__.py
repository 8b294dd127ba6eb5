"""Federated personalization of language models: collective and personal shifts of a frozen model.

The names below are the ones the system itself uses. They are imported when first used, so that
`import fedperfit` takes no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedperfit.edge.agent.history import History, read_history, write_history
    from fedperfit.edge.agent.personalization import (
        PERSONAL_TRAINING,
        answer_questions,
        fit_personal_shift,
        generate_text,
    )
    from fedperfit.edge.engine.generation import Sampling
    from fedperfit.edge.engine.items import ItemCache
    from fedperfit.edge.engine.training import Fit
    from fedperfit.edge.vault.personal import PersonalShift
    from fedperfit.protocol.messages.settings import TrainingSettings
    from fedperfit.protocol.model.base_model import BaseModel, BaseModelCard, load, read_card
    from fedperfit.protocol.shift.injection import injected
    from fedperfit.protocol.shift.packing import ShiftHeader
    from fedperfit.protocol.shift.positions import Positions
    from fedperfit.protocol.shift.shape import ShiftShape
    from fedperfit.protocol.shift.shift import Shift
    from fedperfit.protocol.system.errors import (
        FedperfitError,
        InputError,
        MalformedFileError,
        MissingFileError,
        RunFailed,
        SettingError,
    )
    from fedperfit.protocol.tasks.registry import task_by_name
    from fedperfit.protocol.tasks.task import Pair, Task
    from fedperfit.protocol.tasks.wording import PromptForm
    from fedperfit.protocol.trust.release import Release, check_chain
    from fedperfit.protocol.trust.release_file import read_release
    from fedperfit.protocol.trust.signing import SigningKey
    from fedperfit.simulation.compare.method import Family, LogUniform, Method, register_method
    from fedperfit.simulation.run.in_process import FederationResult, run_federation

_ROOMS = {
    "edge.agent.history": ("History", "read_history", "write_history"),
    "edge.agent.personalization": (
        "PERSONAL_TRAINING",
        "answer_questions",
        "fit_personal_shift",
        "generate_text",
    ),
    "edge.engine.items": ("ItemCache",),
    "edge.engine.generation": ("Sampling",),
    "edge.engine.training": ("Fit",),
    "edge.vault.personal": ("PersonalShift",),
    "protocol.messages.settings": ("TrainingSettings",),
    "protocol.model.base_model": ("BaseModel", "BaseModelCard", "load", "read_card"),
    "protocol.shift.injection": ("injected",),
    "protocol.shift.packing": ("ShiftHeader",),
    "protocol.shift.positions": ("Positions",),
    "protocol.shift.shape": ("ShiftShape",),
    "protocol.shift.shift": ("Shift",),
    "protocol.system.errors": (
        "FedperfitError",
        "InputError",
        "MalformedFileError",
        "MissingFileError",
        "RunFailed",
        "SettingError",
    ),
    "protocol.tasks.registry": ("task_by_name",),
    "protocol.tasks.task": ("Pair", "Task"),
    "protocol.tasks.wording": ("PromptForm",),
    "protocol.trust.release": ("Release", "check_chain"),
    "protocol.trust.release_file": ("read_release",),
    "protocol.trust.signing": ("SigningKey",),
    "simulation.compare.method": ("Family", "LogUniform", "Method", "register_method"),
    "simulation.run.in_process": ("FederationResult", "run_federation"),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [  # noqa: RUF022 - by what one does with them
    "load",
    "BaseModel",
    "BaseModelCard",
    "read_card",
    "Positions",
    "ShiftShape",
    "Shift",
    "injected",
    "Task",
    "task_by_name",
    "PromptForm",
    "Pair",
    "History",
    "read_history",
    "write_history",
    "TrainingSettings",
    "PERSONAL_TRAINING",
    "ItemCache",
    "PersonalShift",
    "Fit",
    "fit_personal_shift",
    "answer_questions",
    "Sampling",
    "generate_text",
    "run_federation",
    "FederationResult",
    "ShiftHeader",
    "SigningKey",
    "Release",
    "read_release",
    "check_chain",
    "Method",
    "Family",
    "LogUniform",
    "register_method",
    "FedperfitError",
    "InputError",
    "MissingFileError",
    "MalformedFileError",
    "SettingError",
    "RunFailed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedperfit' has no attribute {name!r}")
    value = getattr(import_module(f"fedperfit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
