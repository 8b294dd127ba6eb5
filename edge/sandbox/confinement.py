"""The sandbox of the SuperNode: nothing of a person's is in it, and nothing in it outlives it.

It talks to the cloud all day, so it runs under bubblewrap: in namespaces of its own, without capabilities or
the means to make further namespaces, with an environment, a user, a host name and an /etc that are made up,
and a network on which there is nothing but the way to the cloud (fedperfit.edge.sandbox.inside).
The file system holds the system's programs, Python, and what it is given, all read-only; only two small
folders in memory can be written, and no program outside ever opens them.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import fedperfit
from fedperfit.edge import sandbox
from fedperfit.protocol.sandboxes.bubblewrap import KERNEL, POWERLESS, check, program
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.flower import QUIET
from fedperfit.protocol.system.processes import SAFE_PATH

SHOWN = Path("/edge")
"""Folder in the sandbox that holds what it is given, each under its name."""
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/nix/store", "/run/current-system"),
)
"""Folders of the system's programs and libraries, where they are there."""
_PRIVATE_ETC = ("passwd", "group", "hosts", "nsswitch.conf")
_SYSTEM_ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "ssl/openssl.cnf")
"""Files of /etc that programs are loaded with; they name no person and no machine."""
_NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"),
    *("--unshare-cgroup-try", "--disable-userns", "--uid", "1000", "--gid", "1000", "--hostname", "edge"),
    "--clearenv",
)
_PROGRAM = "the program that talks to the cloud"
_RISK = f"{_PROGRAM} could read what you can"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Numpy, which Flower imports, otherwise takes threads and memory by the number of cores, past the limits."""
_SCRATCH_BYTES = 32 << 20
"""Size of either folder that can be written; they are in memory."""


def confined(
    command: Sequence[str],
    *,
    shown: Mapping[str, Path],
    uplink: Path | None = None,
    mirror: Path | None = None,
) -> list[str]:
    """Return the command that runs `command` in the sandbox.

    Args:
        command: Program and arguments; paths among them are those in the sandbox.
        shown: Folders that are shown, read-only, by the name they have below `SHOWN`. A socket in them can
            be connected to.
        uplink: Socket that leads to the cloud; None: no way there.
        mirror: Socket that leads to the mirror of releases; None: no way there.

    Raises:
        InputError: If bubblewrap is missing, the system does not allow it its namespaces, or what is shown
            lies in a folder of programs that the sandbox sees whole.
    """
    places = list(_python())
    for path in shown.values():
        _check_apart(path, places)
    shell = [
        program(_RISK),
        *_NAMESPACES,
        *POWERLESS,
        *KERNEL,
        "--remount-ro",
        "/dev",
    ]
    for scratch in sandbox.SCRATCH:
        shell += ["--perms", "0700", "--size", str(_SCRATCH_BYTES), "--tmpfs", scratch]
    for part in _SYSTEM:
        shell += ["--ro-bind-try", part, part]
    for name in _PRIVATE_ETC:
        shell += ["--ro-bind", str(Path(sandbox.__file__).parent / "etc" / name), f"/etc/{name}"]
    for name in _SYSTEM_ETC:
        shell += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for folder in places:
        shell += ["--ro-bind", str(folder), str(folder)]
    for name, value in _environment().items():
        shell += ["--setenv", name, value]
    check([*shell, "--remount-ro", "/", "--", "true"], "the SuperNode", _RISK)
    for name, folder in shown.items():
        shell += ["--ro-bind", str(folder.absolute()), str(SHOWN / name)]
    inside = [sys.executable, "-m", "fedperfit.edge.sandbox.inside"]
    for name, way in (("uplink", uplink), ("mirror", mirror)):
        if way is not None:
            shell += ["--ro-bind", str(way.parent.absolute()), str(SHOWN / name)]
            inside += [f"--{name}", str(SHOWN / name / way.name)]
    return [*shell, "--remount-ro", "/", "--chdir", sandbox.HOME, "--", *inside, "--", *command]


def _check_apart(path: Path, places: Sequence[Path]) -> None:
    """Refuse a path in a folder that the sandbox sees whole, with all that is beside the path."""
    for place in (*map(Path, _SYSTEM), *places):
        if path.resolve().is_relative_to(place.resolve()):
            raise InputError(
                f"{path}: lies in {place}, all of which {_PROGRAM} sees; choose a folder elsewhere"
            )


def _environment() -> dict[str, str]:
    """Return all variables of the sandbox; none is the owner's."""
    path = [str(Path(sys.executable).parent), "/usr/bin", "/bin", "/run/current-system/sw/bin"]
    home = {"HOME": sandbox.HOME, "FLWR_HOME": f"{sandbox.HOME}/flower"}
    variables = {"PATH": ":".join(path), "LANG": "C.UTF-8", **home}
    source = Path(fedperfit.__file__).parent.parent
    if not source.is_relative_to(sys.prefix):
        variables["PYTHONPATH"] = str(source)
    return {**variables, **_ONE_THREAD, **QUIET, **SAFE_PATH}


def _python() -> Iterator[Path]:
    """Yield where this Python, its libraries and our code for edges are, unless the system holds them."""
    places = {Path(sys.prefix).absolute(), Path(sys.base_prefix).absolute(), Path(sys.prefix).resolve()}
    places.add(Path(sys.executable).resolve().parent.parent)
    package = Path(fedperfit.__file__).parent
    own = [package, *(package.joinpath(part).resolve() for part in ("edge", "protocol"))]
    shown: list[Path] = [Path(path) for path in _SYSTEM]
    for folder in (*sorted(places), *own):
        if not any(folder.is_relative_to(path) for path in shown):
            shown.append(folder)
            yield folder
