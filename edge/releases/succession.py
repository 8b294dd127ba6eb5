"""Which release or pointer may follow what an edge knows already: forward only, along one chain.

Every function raises InputError with the reason where it may not.
"""

from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.pointer import NONE, Pointer
from fedperfit.protocol.trust.release import Release


def check_release(kept: Release, release: Release) -> None:
    """Check a release against the newest one kept.

    Args:
        kept: newest release kept, revoked or not.
        release: verified release that is another one.
    """
    if release.version < kept.version:
        raise InputError(f"version {release.version} is older than {kept.version}, which is in force")
    if release.version == kept.version:
        raise InputError(f"another release of version {kept.version} is in force")
    if release.chain[: kept.version] != (*kept.chain, kept.digest):
        raise InputError(f"its chain does not hold version {kept.version}, which is in force")
    before = tuple(rotation for rotation in release.rotations if rotation.version <= kept.version)
    if before != kept.rotations:
        raise InputError(f"its rotations of keys up to version {kept.version} are not those in force")


def check_pointed(known: Pointer, release: Release) -> None:
    """Check a release against the cloud's latest word.

    Args:
        known: newest pointer kept.
        release: verified release.
    """
    if release.version in known.revoked:
        raise InputError(f"version {release.version} was revoked")
    if release.version < known.version and len(release.rotations) <= len(known.rotations):
        raise InputError(f"version {release.version} is older than {known.version}, which is in force")
    if release.rotations[: len(known.rotations)] != known.rotations:
        raise InputError("its rotations of keys are not those known here")
    if len(release.rotations) > len(known.rotations):
        return  # whoever had the old key may have said anything by it
    if known.version != NONE and (*release.chain, release.digest)[known.version - 1] != known.digest:
        raise InputError(f"it is not of the chain of version {known.version}, which is in force")


def check_pointer(known: Pointer | None, kept: Release | None, pointer: Pointer) -> None:
    """Check a pointer against the pointer and the release before it.

    A new key begins anew: what the last pointer said by the old one no longer binds. The releases kept do.

    Args:
        known: newest pointer kept, if there is one.
        kept: newest release kept, revoked or not, if there is one.
        pointer: verified pointer.
    """
    if known is not None:
        if pointer.rotations[: len(known.rotations)] != known.rotations:
            raise InputError("its rotations of keys are not those known here")
        if pointer.rotations == known.rotations:
            _check_renewal(known, pointer)
    if kept is not None:
        before = tuple(rotation for rotation in pointer.rotations if rotation.version <= kept.version)
        if before != kept.rotations:
            raise InputError(f"its rotations of keys up to version {kept.version} are not those in force")
        _check_forward(kept.version, kept.digest, pointer)


def _check_renewal(known: Pointer, pointer: Pointer) -> None:
    if pointer.issued < known.issued:
        raise InputError(f"it was issued at {pointer.issued}, before the one of {known.issued}")
    if not set(known.revoked) <= set(pointer.revoked):
        raise InputError("it takes back a revocation")
    if known.version != NONE:
        _check_forward(known.version, known.digest, pointer)


def _check_forward(version: int, digest: str, pointer: Pointer) -> None:
    if pointer.version == version and pointer.digest != digest:
        raise InputError(f"it names another release of version {version}")
    if pointer.version < version and not (pointer.version == NONE and version in pointer.revoked):
        raise InputError(f"version {pointer.version} is older than {version}, which was in force")
