"""The gate: a result against a stored one; to tell more than the stored interval allows is a regression."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedperfit.protocol.system.errors import InputError, RunFailed
from fedperfit.protocol.system.files import read_json
from fedperfit.simulation.audit.attack import Role
from fedperfit.simulation.audit.result import FORMAT
from fedperfit.simulation.audit.settings import AuditSettings


class Regression(RunFailed):
    """An attack tells more than it did, or can no longer be trusted to tell what there is."""


def read_result(path: Path) -> dict[str, Any]:
    """Read a result that an audit wrote; raises InputError where it is none."""
    result = read_json(path)
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise InputError(f"{path}: no result of an audit, format {FORMAT}")
    return result


def stored_gate(path: Path) -> AuditSettings:
    """Read the settings of a stored result, under which it can be compared with a new one."""
    return AuditSettings.from_flat(read_result(path)["settings"])


def check(result: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
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


def _faults(new: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    for name, attack in stored.items():
        conditions = new.get(name, {}).get("conditions", {})
        for condition, figures in attack["conditions"].items():
            if condition not in conditions:
                yield f"{name}, {condition}: missing"
                continue
            for key, before in figures.items():
                if isinstance(before, dict):
                    fault = _fault(conditions[condition].get(key), before, figures["role"])
                    if fault:
                        yield f"{name}, {condition}: {key} {fault}"


def _fault(now: Mapping[str, float] | None, before: Mapping[str, float], role: str) -> str | None:
    if now is None:
        return "is missing"
    if role == Role.POSITIVE and now["value"] < before["low"]:
        return f"is {now['value']:.3f}, below {before['low']:.3f}: the positive control fails"
    if role != Role.POSITIVE and now["value"] > before["high"]:
        return f"is {now['value']:.3f}, above {before['high']:.3f}"
    return None
