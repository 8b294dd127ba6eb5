"""The cloud's signing keys that an edge trusts: the one pinned at enrolment, and those it was rotated to."""

from pathlib import Path

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.rotation import keys_from


def trusted_keys(releases: Path, pinned: str) -> list[str]:
    """List the cloud's public keys, from the pinned one to the one in force, the last.

    The rotations between them are those that the newest verified release vouches for.

    Args:
        releases: folder of the releases that the edge keeps.
        pinned: the cloud's public key from the enrolment, 64 hexadecimal digits.
    """
    from fedperfit.protocol.trust.release_file import read_release  # loads torch, which few commands need

    for path in sorted(releases.glob("*.safetensors"), reverse=True):
        try:
            release = read_release(path)
            release.check_signed_from(pinned)
        except InputError:
            continue
        return keys_from(pinned, release.rotations)
    return [pinned]
