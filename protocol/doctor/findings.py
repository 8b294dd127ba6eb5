"""Findings of a doctor: what was looked at, how it is, and what to do where it is not well."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fedperfit.protocol.system.errors import FedperfitError


class Verdict(StrEnum):
    """How well something is, or not."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at, in a few words."""
    verdict: Verdict
    """How well it is."""
    said: str
    """What was found there."""
    advice: str = ""
    """What to do, in one line; empty where all is well."""


Group = Callable[[], Iterable[Finding]]
"""Checks that belong together."""


def ok(check: str, said: str) -> Finding:
    """Return the finding that something is well."""
    return Finding(check, Verdict.OK, said)


def warning(check: str, said: str, advice: str) -> Finding:
    """Return the finding that something works, but not for long or not as it should."""
    return Finding(check, Verdict.WARNING, said, advice)


def wrong(check: str, said: str, advice: str) -> Finding:
    """Return the finding that something keeps cloud or edge from working, or from being safe."""
    return Finding(check, Verdict.WRONG, said, advice)


def examine(groups: Mapping[str, Group]) -> list[Finding]:
    """Look at everything; what stops a group of checks is a finding itself, and the others go on.

    Args:
        groups: Checks by the name of what they look at.
    """
    findings: list[Finding] = []
    for name, group in groups.items():
        try:
            findings.extend(group())
        except (FedperfitError, OSError) as error:
            findings.append(wrong(name, str(error), "mend this first: more could not be looked at"))
    return findings
