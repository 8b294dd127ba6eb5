"""`fedperfit-cloud release`: look at the chain of releases, verify it, revoke one, rotate the key."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fedperfit.protocol.system.commands import console, print_line
from fedperfit.protocol.system.errors import MissingFileError, count_of
from fedperfit.protocol.trust.published import check_released, releases_folder

if TYPE_CHECKING:
    from fedperfit.protocol.trust.release import Release

app = typer.Typer(help="Releases: the collective shifts handed to edges.", no_args_is_help=True)

_Folder = Annotated[Path, typer.Argument(help="The cloud's folder, as `init` made it.")]


@app.command("list")
def list_releases(folder: _Folder) -> None:
    """Print one line per release: version, state, times, rounds, privacy spent, the key that signed."""
    check_released(folder)

    from fedperfit.cloud.deployment.release_store import CloudReleases

    store = CloudReleases(folder)
    releases, revoked = store.all(), store.revoked()
    table = Table("version", "", "issued", "expires", "rounds", "privacy", "key", "digest")
    for release in releases:
        last = "in force" if release is releases[-1] else ""
        table.add_row(
            *(str(release.version), "revoked" if release.version in revoked else last),
            *(release.issued, release.expires, str(release.header.round)),
            *(release.promise or "-", release.key[:16]),
            release.digest[:16],
        )
    console().print(table)


@app.command()
def verify(
    folder: _Folder,
    key: Annotated[str, typer.Option(help="The public key to trust; by default the first release's.")] = "",
) -> None:
    """Verify the whole chain offline: every signature, rotation, digest and hash."""
    check_released(folder)

    from fedperfit.cloud.deployment.release_store import CloudReleases
    from fedperfit.protocol.trust.release import check_chain

    releases = CloudReleases(folder).all()
    check_chain(releases, key or releases[0].key)
    console().print(f"{count_of(len(releases), 'release')} verified, from key {key or releases[0].key}")


@app.command()
def show(
    place: Annotated[Path, typer.Argument(help="A release file, or the cloud's folder for its latest.")],
) -> None:
    """Verify one release and print what it says of itself.

    Checks that the file is whole, that the shift matches its SHA-256, that the metadata agrees with the
    shift's own header, and that the key it names has signed it.
    """
    release = release_at(place)
    release.check_signed_from(release.rotations[0].old if release.rotations else release.key)
    table = Table("field", "value", title=f"release {release.version}")
    for name, value in {**release.fields(), "digest": release.digest}.items():
        table.add_row(name, _text(value))
    console().print(table)


@app.command()
def revoke(
    folder: _Folder,
    version: Annotated[int, typer.Argument(help="Version of the release; see `list`.")],
) -> None:
    """Revoke a release for ever: no edge uses it from the moment it hears of it.

    If it is in force, the latest content that was not revoked is released again as a new version, or
    nothing is in force. Edges fetch that by themselves; they never go back to a version.
    """
    lifetime = _lifetime(folder)
    check_released(folder)

    from fedperfit.cloud.deployment.release_store import CloudReleases

    now = CloudReleases(folder).revoke(version, lifetime=lifetime)
    after = f"version {now.version} is in force" if now is not None else "no release is in force"
    console().print(f"revoked version {version}; {after}")


@app.command()
def members(folder: _Folder) -> None:
    """Release what is in force again, with the keys of all enrolled clients for secure sums.

    Committees are drawn from this list. Do it before a run with secure-aggregation, and again once clients
    came or left; edges fetch the release by themselves.
    """
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud

    home = CloudHome(folder)
    read_cloud(home)

    from fedperfit.cloud.enrolment.members import publish_members

    release, without = publish_members(home)
    assert release.directory is not None
    names = ", ".join(release.directory.keys)
    print_line(f"release {release.version} names {names}")
    if without:
        lacking = ", ".join(without)
        console().print(
            f"without keys, and in no sum until they join by a new invitation: {lacking}",
            markup=False,
            soft_wrap=True,
        )


@app.command()
def publish(
    folder: _Folder,
    out: Annotated[
        Path,
        typer.Argument(file_okay=False, help="Folder of the static files, for a web server to hand out."),
    ],
    keep: Annotated[
        bool, typer.Option("--keep", help="Go on, and write anew what the cloud publishes, until stopped.")
    ] = False,
) -> None:
    """Write the releases as static files, which any web server or cache may hand out to edges.

    They are signed, and hold no secret. Edges fetch from the address that `mirror` in `cloud.toml` names,
    once their owners agreed to it.
    """
    releases_folder(folder)

    from fedperfit.cloud.publishing.static_files import StaticFiles, status
    from fedperfit.protocol.system.processes import until_signal

    with StaticFiles.open(folder, out) as files:
        if keep:
            with until_signal() as stopping:
                files.keep(print_line, stopping)
        else:
            print_line(status(files.write()))


@app.command()
def rotate(folder: _Folder) -> None:
    """Make a new signing key and release the latest shift again, signed by both keys.

    Edges that pinned the old key follow to the new one; what the old key signs from then on they refuse.
    """
    lifetime = _lifetime(folder)

    from fedperfit.cloud.deployment.certificate_authority import publish_authorities
    from fedperfit.cloud.deployment.home import CloudHome
    from fedperfit.cloud.deployment.release_store import CloudReleases

    release = CloudReleases(folder).rotate(lifetime=lifetime)
    publish_authorities(CloudHome(folder))
    console().print(f"release {release.version} is signed by both keys; the new one is {release.key}")


def release_at(place: Path) -> "Release":
    """Read a release file, or the latest of a cloud's folder.

    Args:
        place: File or folder.

    Raises:
        InputError: There is none, or it is broken.
    """
    if place.is_dir():
        check_released(place)
    elif not place.exists():
        raise MissingFileError(f"{place}: no such file or folder")

    from fedperfit.cloud.deployment.release_store import CloudReleases
    from fedperfit.protocol.trust.release_file import read_release

    release = CloudReleases(place).latest() if place.is_dir() else read_release(place)
    assert release is not None
    return release


def _lifetime(folder: Path) -> timedelta:
    """Return how long the cloud's releases are valid, as its settings say."""
    from fedperfit.cloud.deployment.home import CloudHome, read_cloud

    return timedelta(days=read_cloud(CloudHome(folder)).lifetime_days)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value in (None, "") else str(value)
