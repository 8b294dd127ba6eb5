"""What an owner allows: `fedperfit-edge pause`, `resume`, `share-metrics`, `personal-epsilon`, `consent`."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedperfit.edge.cli.owner import Folder
from fedperfit.protocol.system.commands import console


class Switch(StrEnum):
    """The two positions of a switch."""

    ON = "on"
    OFF = "off"


def pause(folder: Folder) -> None:
    """Answer the cloud nothing until `resume`; you are answered as before."""
    _set_paused(folder, True)


def resume(folder: Folder) -> None:
    """Answer the cloud again, as far as you consent."""
    _set_paused(folder, False)


def share_metrics(
    folder: Folder,
    switch: Annotated[Switch, typer.Argument(help="on sends sums of losses and scores; off does not.")],
) -> None:
    """Send sums of losses and scores to the cloud, or no longer."""
    from fedperfit.edge.agent import consent

    consent.share_metrics(_joined(folder), switch is Switch.ON)
    console().print(f"sums of losses and scores are {'' if switch is Switch.ON else 'not '}sent")


def personal_epsilon(
    folder: Folder,
    epsilon: Annotated[float, typer.Argument(help="Epsilon, for instance 8; 0 ends the limit.")],
) -> None:
    """Limit what your personal shift tells of any one item, from the next fit on; see Privacy in the docs.

    Whoever steals the shift then learns little of any one item of your history: differential privacy at delta
    1e-3, by noise. It takes a release with a basis for personal shifts.
    """
    from fedperfit.edge.agent.consent import limit_epsilon

    limit_epsilon(_joined(folder), epsilon)
    limit = f"at most epsilon {epsilon:g} of any item" if epsilon else "what it tells, without a limit"
    console().print(f"the next personal shift tells {limit}")


def consent(
    folder: Folder,
    kind: Annotated[
        str, typer.Argument(help="contribute, personalize, evaluate, moments, probe, pull or sum.")
    ],
    switch: Annotated[Switch, typer.Argument(help="on answers such requests; off refuses them.")],
) -> None:
    """Answer requests of one kind, or refuse them."""
    from fedperfit.edge.agent.consent import change_consent

    changed = change_consent(_joined(folder), lambda now: now.allowing(kind, switch is Switch.ON))
    console().print(f"refused: {', '.join(changed.refused) or 'no kind of request'}")


def _set_paused(folder: Folder, paused: bool) -> None:
    from fedperfit.edge.agent.consent import change_consent

    change_consent(_joined(folder), lambda now: replace(now, paused=paused))
    console().print("paused: the cloud is answered nothing" if paused else "the cloud is answered again")


def _joined(folder: Path) -> Path:
    from fedperfit.edge.deployment.home import Home, read_settings

    read_settings(Home(folder))
    return folder
