"""`fedperfit-edge learned` and `unlearn`: what was learned, item by item, and removing some of it."""

from typing import Annotated

import typer

from fedperfit.edge.cli.owner import Folder, owner
from fedperfit.protocol.system.commands import console, print_line


def learned(folder: Folder) -> None:
    """Show the items that `learn` added, with their numbers."""
    from fedperfit.protocol.schema import owner_pb2

    with owner(folder) as agent:
        items = [item for part in agent.Learned(owner_pb2.LearnedRequest()) for item in part.items]
    for number, item in enumerate(items, start=1):
        print_line(f"{number}  {item}")
    if not items:
        console().print("nothing was learned")


def unlearn(
    folder: Folder,
    numbers: Annotated[list[int], typer.Argument(help="Numbers of the items, as `learned` shows them.")],
) -> None:
    """Remove learned items, and fit the personal shift anew without them.

    Shifts that were fitted on them are deleted first. What the collective shift learned of them stays.
    """
    from fedperfit.protocol.schema import owner_pb2

    with owner(folder) as agent:
        places = [min(max(0, number), 2**31 - 1) for number in numbers]
        done = agent.Unlearn(owner_pb2.UnlearnRequest(numbers=places))
    fitted = "the personal shift is fitted anew" if done.fitted else "there is no personal shift for now"
    console().print(f"{len(set(numbers))} removed, {done.learned} in the vault; {fitted}")
