"""What the owner consents to at this moment: kept in `consent.json`, read at every request of the cloud's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedperfit.edge.agent.history import changing
from fedperfit.protocol.settings.forms import read_form
from fedperfit.protocol.system.errors import InputError, MalformedFileError
from fedperfit.protocol.system.files import read_json, write_json

KINDS = ("contribute", "personalize", "evaluate", "moments", "probe", "pull", "sum")
"""Kinds of request that the owner may allow or refuse one by one."""

MOST_EPSILON = 100.0
"""Largest epsilon that can be asked for; 20 already promises next to nothing."""
_PERSONAL_EPSILON = "personal-epsilon"


class Paused(InputError):
    """The owner has paused the agent; it answers nobody else."""


class NotConsented(InputError):
    """The owner does not consent to this kind of request."""


@dataclass(frozen=True)
class Consent:
    """One state of the owner's consent."""

    paused: bool = False
    """Whether the cloud is answered nothing at all."""
    refused: tuple[str, ...] = ()
    """Kinds of request that are refused."""

    def check(self, kind: str) -> None:
        """Let a request pass.

        Args:
            kind: Kind of request.

        Raises:
            Paused: Nothing is answered.
            NotConsented: This kind is not.
        """
        if self.paused:
            raise Paused("you have paused the agent; fedperfit-edge resume answers the cloud again")
        if kind in self.refused:
            raise NotConsented(f"you do not consent to {kind}; fedperfit-edge consent changes that")

    def allowing(self, kind: str, allowed: bool) -> "Consent":
        """Return this consent with one kind allowed or refused.

        Args:
            kind: Kind of request.
            allowed: Whether it is answered.

        Raises:
            InputError: There is no such kind.
        """
        if kind not in KINDS:
            raise InputError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
        refused = {*self.refused} - {kind} if allowed else {*self.refused, kind}
        return replace(self, refused=tuple(sorted(refused)))


def read_consent(folder: Path) -> Consent:
    """Return the consent in force; it is to everything where the owner never changed it.

    Args:
        folder: The person's own folder.

    Raises:
        MalformedFileError: Nothing can be said to be consented to.
    """
    path = folder / "consent.json"
    if not path.exists():
        return Consent()
    fields = read_json(path)
    try:
        paused, refused = fields["paused"], tuple(fields["refused"])
        if type(paused) is not bool or not set(refused) <= set(KINDS):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise MalformedFileError(
            f"{path}: needs paused, true or false, and refused, a list of kinds"
        ) from None
    return Consent(paused, refused)


def change_consent(folder: Path, change: Callable[[Consent], Consent]) -> Consent:
    """Put another consent in force, made of the one that is.

    Args:
        folder: The person's own folder.
        change: Returns the new consent for the old one.

    Returns:
        The new one.

    Raises:
        InputError: The old one cannot be read, or `change` raises it.
    """
    with changing(folder):
        consent = change(read_consent(folder))
        write_consent(folder, consent)
    return consent


def write_consent(folder: Path, consent: Consent) -> None:
    """Put a consent in force, at once and until it is changed."""
    fields = {"paused": consent.paused, "refused": list(consent.refused)}
    write_json(folder / "consent.json", fields)


def shares_metrics(folder: Path) -> bool:
    """Return whether sums of losses and scores are sent with replies."""
    about = read_json(folder / "client.json")
    return isinstance(about, dict) and about.get("shares_metrics") is True


def share_metrics(folder: Path, share: bool) -> None:
    """Send sums of losses and scores with replies from now on, or no longer."""
    path = folder / "client.json"
    with changing(folder):
        write_json(path, {**read_form(path, dict[str, Any]), "shares_metrics": share})


def personal_epsilon(folder: Path) -> float:
    """Return what a personal shift may tell of any one item, as epsilon; 0 where the owner sets no limit.

    Raises:
        InputError: client.json is malformed, or the limit is not a number from 0 to 100.
    """
    path = folder / "client.json"
    about = read_json(path)
    epsilon = about.get(_PERSONAL_EPSILON, 0) if isinstance(about, dict) else None
    if not isinstance(epsilon, int | float) or isinstance(epsilon, bool) or not 0 <= epsilon <= MOST_EPSILON:
        raise InputError(f"{path}: {_PERSONAL_EPSILON}: expected a number from 0 to {MOST_EPSILON:g}")
    return float(epsilon)


def check_limit(epsilon: float) -> None:
    """Refuse a limit on personal shifts that is not a number from 0 to 100; raises InputError."""
    if not 0 <= epsilon <= MOST_EPSILON:
        raise InputError(
            f"{_PERSONAL_EPSILON}: expected a number from 0 to {MOST_EPSILON:g}, not {epsilon:g}"
        )


def limit_epsilon(folder: Path, epsilon: float) -> None:
    """Limit what the next personal shifts may tell of any one item; 0 ends the limit.

    Raises:
        InputError: the limit is not a number from 0 to 100.
    """
    check_limit(epsilon)
    path = folder / "client.json"
    with changing(folder):
        kept = {
            key: value for key, value in read_form(path, dict[str, Any]).items() if key != _PERSONAL_EPSILON
        }
        write_json(path, {**kept, _PERSONAL_EPSILON: epsilon} if epsilon else kept)
