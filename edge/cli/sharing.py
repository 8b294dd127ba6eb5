"""`fedperfit-edge export-shift`: the personal shift in a file, because its owner says so."""

from pathlib import Path
from typing import Annotated

import typer

from fedperfit.protocol.system.commands import console, print_line
from fedperfit.protocol.system.errors import InputError


def export_shift(
    folder: Annotated[Path, typer.Argument(help="Your own folder.")],
    file: Annotated[Path, typer.Argument(dir_okay=False, help="New file, safetensors.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Write your personal shift to a file, in the clear. Whoever has the file can tell much about you."""
    from fedperfit.edge.deployment.home import Home, read_settings
    from fedperfit.edge.vault.export import WARNING, export_shift
    from fedperfit.edge.vault.keys import keeper
    from fedperfit.edge.vault.vault import VAULT, Vault
    from fedperfit.edge.vault.vault_key import kept_by
    from fedperfit.protocol.messages.settings import FULL_SLOT

    home = Home(folder.absolute())
    settings = read_settings(home)
    if file.resolve().is_relative_to(home.folder.resolve()):
        raise InputError(f"{file}: is in your own folder, where what talks to the cloud might see it")
    console().print(WARNING, soft_wrap=True)
    if not yes:
        typer.confirm(f"write it to {file}?", abort=True)
    export_shift(Vault(home.folder / VAULT, keeper(kept_by(home.vault_key, settings.key))), FULL_SLOT, file)
    print_line(f"wrote {file}, readable by you alone")
