"""Confines the SuperNode so that it sees nothing of a person's and can change nothing.

In a deployment Flower runs ClientApp code that the cloud ships, with the rights of whoever runs the
SuperNode. So it runs under bubblewrap: in namespaces of its own, without capabilities, in a file system that
holds the system and Python read-only, a private /tmp, and the folders it is given. Homes, other people's
folders and other processes are not there.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import fedperfit
from fedperfit.protocol.system.errors import InputError

_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/nix/store"),
    *("/run/systemd/resolve", "/run/current-system", "/sys/devices/system/cpu"),
)
"""Folders of the system that programs need; those that are missing are left out."""
_NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_POWERLESS = ("--cap-drop", "ALL", "--new-session", "--die-with-parent")


def confined(command: Sequence[str], *, writable: Sequence[Path]) -> list[str]:
    """Wrap a command so that it can change nothing but some folders and sees nothing else of a person's.

    Args:
        command: program and arguments.
        writable: folders the program may change; it runs in the first.

    Returns:
        Program and arguments of bubblewrap.

    Raises:
        InputError: bubblewrap is missing, or the system does not allow it its namespaces.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise InputError(
            "bwrap is missing, so code from the cloud could read what you can: apt install bubblewrap (or "
            "your system's package of it); --unconfined accepts that"
        )
    shell = [program, *_NAMESPACES, *_POWERLESS, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in _SYSTEM:
        shell += ["--ro-bind-try", path, path]
    for folder in _python():
        shell += ["--ro-bind", str(folder), str(folder)]
    _check([*shell, "--", "true"])
    for folder in writable:
        shell += ["--bind", str(folder.absolute()), str(folder.absolute())]
    return [*shell, "--chdir", str(writable[0].absolute()), "--", *command]


def _python() -> Iterator[Path]:
    """Folders of this Python, its libraries and our edge code, but for those in the system's folders."""
    prefixes = {Path(sys.prefix).absolute(), Path(sys.base_prefix).absolute(), Path(sys.prefix).resolve()}
    prefixes.add(Path(sys.executable).resolve().parent.parent)
    package = Path(fedperfit.__file__).parent
    own = [package, *(package.joinpath(part).resolve() for part in ("edge", "protocol"))]
    shown: list[Path] = [Path(path) for path in _SYSTEM]
    for folder in (*sorted(prefixes), *own):
        if not any(folder.is_relative_to(path) for path in shown):
            shown.append(folder)
            yield folder


def _check(trial: Sequence[str]) -> None:
    done = subprocess.run(trial, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said else "no reason given"
        raise InputError(
            f"this system does not let the SuperNode be confined ({reason}), so code from the cloud could "
            "read what you can; --unconfined accepts that"
        )
