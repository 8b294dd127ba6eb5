"""Where a cloud's folder may be: its keys must not end up in a repository or in the package."""

from pathlib import Path

import fedperfit
from fedperfit.protocol.system.errors import InputError


def check_place(folder: Path) -> None:
    """Refuse a folder in which private keys would soon be committed, shipped or overwritten.

    Args:
        folder: Folder to be made; it need not exist.

    Raises:
        InputError: If it lies in a git work tree, or in fedperfit's own folders.
    """
    place = folder.resolve()
    package = Path(fedperfit.__file__).parent
    for own in (package, *package.iterdir()):
        if own.is_dir() and place.is_relative_to(own.resolve()):
            raise InputError(
                f"{folder}: lies in fedperfit's own folder {own.resolve()}; choose another place, or "
                "--force it"
            )
    for parent in (place, *place.parents):
        if (parent / ".git").exists():
            raise InputError(
                f"{folder}: lies in the git work tree {parent}, where its private keys could be committed; "
                "choose another place, or --force it"
            )
