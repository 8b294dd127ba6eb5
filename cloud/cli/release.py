"""`fedperfit-cloud release`: look at the chain of releases, verify it, rotate its key."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedperfit.protocol.system.commands import console
from fedperfit.protocol.system.errors import InputError

app = typer.Typer(help="Releases: the collective shifts handed to edges.", no_args_is_help=True)

_Folder = Annotated[Path, typer.Argument(help="The cloud's folder, as `init` made it.")]


@app.command("list")
def list_releases(folder: _Folder) -> None:
    """Print one line per release: version, times, rounds, privacy spent, the key that signed."""
    from fedperfit.cloud.deployment.release_store import CloudReleases

    releases = CloudReleases(folder).all()
    if not releases:
        raise InputError(f"{folder}: no release yet")
    table = Table("version", "issued", "expires", "rounds", "epsilon", "key", "digest")
    for release in releases:
        table.add_row(
            *(str(release.version), release.issued, release.expires, str(release.header.round)),
            *("-" if release.epsilon is None else f"{release.epsilon:g}", release.key[:16]),
            release.digest[:16],
        )
    console().print(table)


@app.command()
def verify(
    folder: _Folder,
    key: Annotated[str, typer.Option(help="The public key to trust; by default the first release's.")] = "",
) -> None:
    """Verify the whole chain offline: every signature, rotation, digest and hash."""
    from fedperfit.cloud.deployment.release_store import CloudReleases
    from fedperfit.protocol.trust.release import check_chain

    releases = CloudReleases(folder).all()
    if not releases:
        raise InputError(f"{folder}: no release yet")
    check_chain(releases, key or releases[0].key)
    console().print(f"{len(releases)} releases verified, from key {key or releases[0].key}")


@app.command()
def show(
    place: Annotated[Path, typer.Argument(help="A release file, or the cloud's folder for its latest.")],
) -> None:
    """Verify one release and print what it says of itself.

    Checks that the file is whole, that the shift matches its SHA-256, that the metadata agrees with the
    shift's own header, and that the key it names has signed it.
    """
    from fedperfit.cloud.deployment.release_store import CloudReleases
    from fedperfit.protocol.trust.release import read_release

    release = CloudReleases(place).latest() if place.is_dir() else read_release(place)
    if release is None:
        raise InputError(f"{place}: no release yet")
    release.check_signed_from(release.rotations[0].old if release.rotations else release.key)
    table = Table("field", "value", title=f"release {release.version}")
    for name, value in {**release.fields(), "digest": release.digest}.items():
        table.add_row(name, _text(value))
    console().print(table)


@app.command()
def rotate(folder: _Folder) -> None:
    """Make a new signing key and release the latest shift again, signed by both keys.

    Edges that pinned the old key follow to the new one; what the old key signs from then on they refuse.
    """
    from fedperfit.cloud.deployment.release_store import CloudReleases

    release = CloudReleases(folder).rotate()
    console().print(f"release {release.version} is signed by both keys; the new one is {release.key}")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)
