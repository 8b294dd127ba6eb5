"""`fedperfit-cloud doctor`: what is wrong with a cloud, and what to do."""

from pathlib import Path
from typing import Annotated

import typer

from fedperfit.protocol.doctor.report import JSON_HELP


def doctor(
    folder: Annotated[Path, typer.Argument(help="The cloud's folder, as `init` made it.")],
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Look at everything that this cloud needs, and say what to do where something is not well.

    Works with and without a running `up`, and changes nothing. Exits with 1 where something is wrong.
    """
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud

    home = CloudHome(folder)
    settings = read_cloud(home)

    from fedperfit.cloud.doctor.examination import groups
    from fedperfit.protocol.doctor.findings import examine
    from fedperfit.protocol.doctor.report import tell

    tell(examine(groups(home, settings)), as_json=as_json)
