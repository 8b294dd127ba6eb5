"""`fedperfit-cloud tls`: look at the certificates, renew the server's, change the authority."""

from pathlib import Path
from typing import Annotated

import typer

from fedperfit.protocol.system.commands import console, print_line

app = typer.Typer(help="Certificates: how edges know that they speak with this cloud.", no_args_is_help=True)

_Folder = Annotated[Path, typer.Argument(help="The cloud's folder, as `init` made it.")]
_RESTART = "it is used when `up` is started again"


@app.command()
def show(folder: _Folder) -> None:
    """Print until when the certificates are valid."""
    from fedperfit.cloud.deployment.certificate_authority import next_day, valid_until
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud

    home = CloudHome(folder)
    read_cloud(home)
    for name, meaning in (("server.crt", "the server's certificate"), ("ca.crt", "the authority")):
        print_line(f"{meaning} is valid until {valid_until(home.tls / name):%Y-%m-%d}")
    day = next_day(home)
    if day is not None:
        print_line(f"a new authority takes over on the first `up` after {day:%Y-%m-%d %H:%M} UTC")


@app.command()
def renew(folder: _Folder) -> None:
    """Issue the server's certificate anew; edges notice nothing."""
    from fedperfit.cloud.deployment.certificate_authority import renew_certificate
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud

    home = CloudHome(folder)
    until = renew_certificate(home, read_cloud(home))
    print_line(f"the server's certificate is valid until {until:%Y-%m-%d}; {_RESTART}")


@app.command()
def rotate(
    folder: _Folder,
    days: Annotated[int, typer.Option(min=0, help="Days that edges have to learn of the new one.")] = 30,
) -> None:
    """Make a new certificate authority, which takes over on the first `up` after some days.

    Edges that are on learn of it within the hour. One that was off for all that time needs the file
    tls/authorities.json, for `fedperfit-edge trust`.
    """
    from fedperfit.cloud.deployment.certificate_authority import rotate_authority
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud

    home = CloudHome(folder)
    read_cloud(home)
    day = rotate_authority(home, days)
    console().print(
        f"edges are told of a new authority; it takes over on the first `up` after {day:%Y-%m-%d %H:%M} UTC",
        markup=False,
    )
