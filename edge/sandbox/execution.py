"""Nothing that was written in the sandbox is executed: a rule of the kernel (Landlock), where it has one.

It holds for starting programs by their file, not for what a program that runs already reads and interprets.
"""

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""Numbers of Landlock's calls, the same on every processor."""
_EXECUTE, _BENEATH = 1, 1
_NO_NEW_PRIVILEGES = 38
_ABSENT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
"""Errors by which a kernel says that it has no Landlock, or that something forbids it."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def refuse_execution(scratch: Sequence[Path], root: Path = Path("/")) -> bool:
    """Have the kernel execute only what is there now, and nothing that comes into some folders later.

    It holds for this process and all it starts. Call it before there are threads.

    Args:
        scratch: Folders that can be written.
        root: Folder below which all may be executed but for them.

    Returns:
        Whether it does; it cannot where the kernel has no Landlock.

    Raises:
        OSError: If the kernel refuses the rules.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    rules = _Ruleset(_EXECUTE)
    handle = libc.syscall(_CREATE, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    if handle < 0:
        if ctypes.get_errno() in _ABSENT:
            return False
        raise _error()
    try:
        for path in _outside(root, scratch):
            _allow(libc, handle, path)
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(_RESTRICT, handle, 0):
            raise _error()
    finally:
        os.close(handle)
    return True


def _outside(folder: Path, scratch: Sequence[Path]) -> Iterator[Path]:
    """Yield what is below a folder now, folders whole unless a scratch folder is in them or they are one.

    Links are left out: where they lead to is below another folder, or is scratch.
    """
    for path in folder.iterdir():
        if path.is_symlink():
            continue
        if any(path == one or path in one.parents for one in scratch):
            yield from _outside(path, scratch)
        else:
            yield path


def _allow(libc: ctypes.CDLL, handle: int, path: Path) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # gone meanwhile
        return
    try:
        rule = _PathBeneath(_EXECUTE, place)
        if libc.syscall(_ADD, handle, _BENEATH, ctypes.byref(rule), 0):
            raise _error()
    finally:
        os.close(place)


def _error() -> OSError:
    return OSError(ctypes.get_errno(), "execution cannot be restricted")
