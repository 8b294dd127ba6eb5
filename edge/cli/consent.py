"""`fedperfit-edge pause`, `resume`, `share-metrics` and `consent`: at any time, with and without an agent."""

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


def consent(
    folder: Folder,
    kind: Annotated[
        str, typer.Argument(help="contribute, personalize, evaluate, moments, probe, pull or sum.")
    ],
    switch: Annotated[Switch, typer.Argument(help="on answers such requests; off refuses them.")],
) -> None:
    """Answer requests of one kind, or refuse them."""
    from fedperfit.edge.agent.consent import read_consent, write_consent

    changed = read_consent(_joined(folder)).allowing(kind, switch is Switch.ON)
    write_consent(folder, changed)
    console().print(f"refused: {', '.join(changed.refused) or 'no kind of request'}")


def _set_paused(folder: Folder, paused: bool) -> None:
    from fedperfit.edge.agent.consent import read_consent, write_consent

    write_consent(folder, replace(read_consent(_joined(folder)), paused=paused))
    console().print("paused: the cloud is answered nothing" if paused else "the cloud is answered again")


def _joined(folder: Path) -> Path:
    from fedperfit.edge.deployment.home import Home, read_settings

    read_settings(Home(folder))
    return folder
