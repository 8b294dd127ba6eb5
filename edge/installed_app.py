"""Runs the installed package's ClientApp for one message, in place of Flower's program that does so.

Flower's would unpack the bundle that the cloud ships with a run and execute the ClientApp in it. Here nothing
of a bundle is unpacked or imported; one with other code than our cloud ships is refused, so that both sides
know.
"""

import io
import zipfile

from fedperfit.protocol.system.flower_app import DEPLOYED, app_modules
from fedperfit.protocol.system.flower_internals import run_client_app

_DESCRIPTIONS = ("pyproject.toml", ".info/CONTENT")
"""Files of a bundle that Flower makes of the run's name and configuration."""


def main() -> None:
    """Handle the message that Flower's arguments on the command line name."""
    from fedperfit.edge.client_app import app

    run_client_app(app, why_refused)


def why_refused(bundle: bytes) -> str:
    """Return what is wrong with a bundle's code; empty where nothing is.

    Args:
        bundle: Content of the zip file that the cloud shipped.
    """
    ours = app_modules(**DEPLOYED)
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            for member in archive.infolist():
                expected = ours.get(member.filename)
                if expected is None and member.filename not in _DESCRIPTIONS:
                    return f"{member.filename!r} is not of this edge's package"
                if expected is not None and not _holds(archive, member, expected):
                    return f"{member.filename!r} is not the one of this edge's package"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return "it is not a zip file"
    return ""


def _holds(archive: zipfile.ZipFile, member: zipfile.ZipInfo, expected: bytes) -> bool:
    return member.file_size == len(expected) and archive.read(member) == expected


if __name__ == "__main__":
    main()
