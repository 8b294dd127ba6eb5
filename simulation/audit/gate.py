"""The gate: a result against a stored one; to tell more than the stored interval allows is a regression."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict

from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError, MalformedFileError, RunFailed, SettingError
from fedperfit.simulation.audit.attack import Role
from fedperfit.simulation.audit.settings import AuditSettings


class Regression(RunFailed):
    """An attack tells more than it did, or can no longer be trusted to tell what there is."""


class Interval(TypedDict):
    """A figure, and where it lies in 95 of 100 cases."""

    value: float
    low: float
    high: float


class StoredAttack(TypedDict):
    """Figures of an attack and of its controls, by condition; the role of each is among them."""

    conditions: dict[str, dict[str, Interval | float | str | None]]


class StoredResult(TypedDict):
    """Result of an audit, as far as others are compared with it."""

    format: Literal[1]
    setting: dict[str, Any]
    settings: dict[str, Any]
    attacks: dict[str, StoredAttack]


def read_result(path: Path) -> StoredResult:
    """Read a result that an audit wrote; raises InputError, naming the file, where it is none."""
    result = read_form(path, StoredResult)
    for name, attack in result["attacks"].items():
        for condition, figures in attack["conditions"].items():
            if figures.get("role") not in [*Role]:
                raise MalformedFileError(f"{path}: {name}, {condition}: it has no role")
    return result


def stored_gate(path: Path) -> AuditSettings:
    """Read the settings of a stored result, under which it can be compared with a new one.

    Args:
        path: The result.

    Raises:
        InputError: It is none, or its settings are not allowed; the file is named.
    """
    try:
        return AuditSettings.from_flat(read_result(path)["settings"])
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from None


def check(result: Mapping[str, Any], stored: StoredResult) -> None:
    """Compare a result with a stored one.

    Args:
        result: The new one.
        stored: The one that it must not be worse than, of the same settings.

    Raises:
        InputError: The settings differ.
        Regression: An attack or null control tells more than the stored interval allows, or a positive
            control less, or one is missing.
    """
    for key, value in stored["setting"].items():
        if result["setting"].get(key) != value:
            raise InputError(f"{key} is {result['setting'].get(key)}, in the stored result {value}")
    faults = list(_faults(result["attacks"], stored["attacks"]))
    if faults:
        raise Regression("; ".join(faults))


def _faults(new: Mapping[str, Any], stored: Mapping[str, StoredAttack]) -> Iterator[str]:
    for name, attack in stored.items():
        conditions = new.get(name, {}).get("conditions", {})
        for condition, figures in attack["conditions"].items():
            if condition not in conditions:
                yield f"{name}, {condition}: missing"
                continue
            for key, before in figures.items():
                if isinstance(before, dict):
                    fault = _fault(conditions[condition].get(key), before, str(figures["role"]))
                    if fault:
                        yield f"{name}, {condition}: {key} {fault}"


def _fault(now: Mapping[str, float] | None, before: Interval, role: str) -> str | None:
    if now is None:
        return "is missing"
    if role == Role.POSITIVE and now["value"] < before["low"]:
        return f"is {now['value']:.3f}, below {before['low']:.3f}: the positive control fails"
    if role != Role.POSITIVE and now["value"] > before["high"]:
        return f"is {now['value']:.3f}, above {before['high']:.3f}"
    return None
