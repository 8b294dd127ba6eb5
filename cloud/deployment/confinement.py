"""Runs SuperExec, and with it every ServerApp, where the cloud's keys are not to be found.

A run executes an app that was handed in through Flower's control interface, with the rights of the cloud's
account. So it runs under bubblewrap: the machine is there read-only, without other processes and without
the sockets of the person's session; of the cloud's folder there are the runs, which it may write, the names
of the enrolled nodes, and the signer's socket.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import fedperfit
from fedperfit.cloud.deployment.home import CloudHome
from fedperfit.protocol.sandboxes.bubblewrap import KERNEL, POWERLESS, check, program

_NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
_RESOLVER = "/run/systemd/resolve"
_SCRATCH = "/tmp"
"""Folder in the sandbox's own memory, which ends with SuperExec."""
_RISK = "code of a run could read the cloud's keys"


def confined(home: CloudHome, command: Sequence[str], *, shown: Sequence[Path]) -> list[str]:
    """Return `command` where no key of the cloud can be read, and only its runs can be changed.

    Args:
        home: The cloud.
        command: Program and arguments.
        shown: Files of the cloud's folder that the command needs to read.

    Raises:
        InputError: If bubblewrap is missing or the system does not allow it its namespaces.
    """
    folder = home.folder.absolute()
    shell = [
        program(_RISK),
        *_NAMESPACES,
        *POWERLESS,
        "--ro-bind",
        "/",
        "/",
        *KERNEL,
    ]
    for place in (_SCRATCH, "/var/tmp", "/run"):
        shell += ["--tmpfs", place]
    shell += ["--ro-bind-try", _RESOLVER, _RESOLVER]
    for own in _python():
        shell += ["--ro-bind", str(own), str(own)]
    shell += ["--tmpfs", str(folder)]
    for part in (folder / "nodes", home.signer, *shown):
        shell += ["--ro-bind", str(part.absolute()), str(part.absolute())]
    shell += ["--bind", str(home.runs.absolute()), str(home.runs.absolute())]
    shell += ["--setenv", "FLWR_HOME", f"{_SCRATCH}/flower", "--chdir", _SCRATCH]
    shell += ["--remount-ro", str(folder), "--"]
    for part in (home.runs, folder / "nodes", home.signer):
        part.mkdir(parents=True, exist_ok=True, mode=0o700)
    check([*shell, "true"], "runs", _RISK)
    return [*shell, sys.executable, "-P", "-m", "fedperfit.protocol.sandboxes.lifeline", *command]


def _python() -> Iterator[Path]:
    """Yield where this Python, its libraries and our code are, which may be below what is hidden."""
    package = Path(fedperfit.__file__).parent
    parts = [part.resolve() for part in package.iterdir() if part.is_dir()]
    python = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent]
    yield from dict.fromkeys([*python, package, *parts])
