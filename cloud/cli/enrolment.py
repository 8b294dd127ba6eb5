"""`fedperfit-cloud enroll | approve | unenroll`: who may take part."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedperfit.cloud.cli.deployment import Folder
from fedperfit.cloud.deployment.settings import CloudSettings
from fedperfit.protocol.settings.options import setting_option
from fedperfit.protocol.system.commands import print_line
from fedperfit.protocol.system.errors import InputError

_Name = Annotated[str, typer.Argument(help="Name of the client.")]


def enroll(
    folder: Folder,
    name: _Name,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="File of the bundle; by default NAME.bundle.")
    ] = None,
    days: Annotated[int | None, setting_option(CloudSettings, "invitation_days")] = None,
    approve: Annotated[
        bool | None,
        typer.Option(
            "--approve/--no-approve",
            help="Have the machine wait until you `approve` of its key; by default as cloud.toml says.",
        ),
    ] = None,
    any_storage: Annotated[
        bool,
        typer.Option(
            "--any-storage",
            help="Let the machine store the base model in bf16, 8 or 4 bit; loads the model here, once.",
        ),
    ] = False,
) -> None:
    """Invite a person: write a bundle for `fedperfit-edge join`, good for one machine. Keep it secret.

    The machine makes its own key, which never leaves it, and the bundle lets it be registered once.
    """
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud

    home, path = CloudHome(folder), out or Path(f"{name}.bundle")
    read_cloud(home)

    from fedperfit.cloud.enrolment.inviting import enroll as invite

    invitation = invite(home, name, path, approve=approve, days=days, any_storage=any_storage)
    print_line(
        f"wrote {path}, good once, until {invitation.expires}; on {name}'s machine: "
        f"fedperfit-edge join {path.name} --history FILE"
    )


def approve(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Name of the client; none lists all that wait.")] = "",
    fingerprint: Annotated[
        str, typer.Option(help="Fingerprint that `join` shows on the client's machine; else you are asked.")
    ] = "",
) -> None:
    """Let a machine that waits take part, if its key is the one that its owner sees."""
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud
    from fedperfit.cloud.enrolment.registration import approve as register
    from fedperfit.cloud.enrolment.registration import waiting

    home = CloudHome(folder)
    read_cloud(home)
    keys = waiting(home)
    if not name:
        for client, key in keys.items():
            print_line(f"{client} waits with the key {key}")
        if not keys:
            print_line("nobody waits for approval")
        return
    if name not in keys:
        raise InputError(f"{name} does not wait for approval")
    if not fingerprint:
        print_line(f"{name} waits with the key {keys[name]}")
        if not sys.stdin.isatty():
            raise InputError("nobody is here to approve: add --fingerprint as the client's owner sees it")
        if not typer.confirm(f"Does {name}'s owner see the same?"):
            raise InputError("you did not approve, so nothing was changed")
    register(home, name, fingerprint or keys[name])
    print_line(f"{name} is enrolled")


def unenroll(folder: Folder, name: _Name) -> None:
    """Take away a node's right to take part, or take back an invitation that was not used."""
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud
    from fedperfit.cloud.enrolment.registration import unenroll as leave

    home = CloudHome(folder)
    read_cloud(home)
    leave(home, name)
    print_line(f"{name} is no longer enrolled")
