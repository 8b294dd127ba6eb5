"""`fedperfit-edge doctor`: what is wrong with an edge, and what to do."""

from typing import Annotated

import typer

from fedperfit.edge.cli.owner import Folder
from fedperfit.protocol.doctor.report import JSON_HELP


def doctor(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Look at everything that this edge needs, and say what to do where something is not well.

    Works with and without a running agent, tells no word of your history, and changes nothing. Exits with
    1 where something is wrong.
    """
    from fedperfit.edge.deployment.home import Home, read_settings

    home = Home(folder.absolute())
    settings = read_settings(home)

    from fedperfit.edge.doctor.examination import groups
    from fedperfit.protocol.doctor.findings import examine
    from fedperfit.protocol.doctor.report import tell

    tell(examine(groups(home, settings)), as_json=as_json)
