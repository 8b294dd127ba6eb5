"""The cloud's signing keys that an edge trusts: the one pinned at enrolment, and those it was rotated to."""

from contextlib import suppress
from pathlib import Path

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.published import POINTER_FILE
from fedperfit.protocol.trust.rotation import Rotation, keys_from


def trusted_keys(releases: Path, pinned: str) -> list[str]:
    """List the cloud's public keys, from the pinned one to the one in force, the last.

    The rotations between them are those that the newest verified release or pointer vouches for: a rotation
    while no release is in force is known by the pointer alone.

    Args:
        releases: folder of the releases that the edge keeps.
        pinned: the cloud's public key from the enrolment, 64 hexadecimal digits.
    """
    known = (_of_newest_release(releases, pinned), _of_pointer(releases, pinned))
    return keys_from(pinned, max(known, key=len))


def _of_newest_release(releases: Path, pinned: str) -> tuple[Rotation, ...]:
    from fedperfit.protocol.trust.release_file import read_release  # loads torch, which few commands need

    for path in sorted(releases.glob("*.safetensors"), reverse=True):
        with suppress(InputError):
            release = read_release(path)
            release.check_signed_from(pinned)
            return release.rotations
    return ()


def _of_pointer(releases: Path, pinned: str) -> tuple[Rotation, ...]:
    path = releases / POINTER_FILE
    if not path.exists():
        return ()
    from fedperfit.protocol.trust.pointer import parse_pointer  # loads torch too

    with suppress(InputError):
        pointer = parse_pointer(path.read_bytes())
        pointer.check_signed_from(pinned)
        return pointer.rotations
    return ()
