"""Checks of the machine: programs, namespaces, disk and clock."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedperfit.protocol.doctor.findings import Finding, ok, warning, wrong

_LITTLE, _TOO_LITTLE = 2 << 30, 200 << 20
"""Free bytes of a disk that are worth a warning, and that are too few to go on."""
_SYSTEM_PATHS = ":/usr/sbin:/usr/local/sbin:/usr/bin"
_OLD_BUBBLEWRAP = (0, 8)


def program(name: str, package: str, path: str) -> Finding:
    """Check that a program is installed.

    Args:
        name: Name of the program.
        package: Package of Debian and Ubuntu that has it.
        path: PATH to look in; folders of the system's own programs are added.
    """
    found = shutil.which(name, path=f"{path}{_SYSTEM_PATHS}")
    if found is None:
        return wrong(f"program {name}", "is not installed", f"apt install {package}, or your system's own")
    return ok(f"program {name}", found)


def bubblewrap_version() -> Finding:
    """Check that bubblewrap knows the options that the sandbox of an edge needs."""
    check = "version of bubblewrap"
    said = _output(["bwrap", "--version"])
    numbers = tuple(int(number) for number in re.findall(r"\d+", said)[:2])
    if numbers < _OLD_BUBBLEWRAP:
        return wrong(check, said or "not known", "install bubblewrap 0.8 or newer")
    return ok(check, said)


def namespaces() -> Finding:
    """Check that this account may make the namespaces that sandboxes are made of."""
    check = "user namespaces"
    trial = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/"]
    try:
        done = subprocess.run([*trial, "true"], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return wrong(check, f"cannot be tried: {type(error).__name__}", "install bubblewrap first")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        advice = (
            "allow them: sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0; in a container --security-opt seccomp=unconfined"
        )
        return wrong(check, f"are refused: {reason}", advice)
    return ok(check, "may be made")


def disk(folder: Path) -> Finding:
    """Check that the disk of a folder has room."""
    usage = shutil.disk_usage(folder)
    said = f"{usage.free / 2**30:.1f} GiB of {usage.total / 2**30:.1f} are free"
    advice = f"make room on the disk of {folder}"
    if usage.free < _TOO_LITTLE:
        return wrong("disk", said, f"{advice}: nothing is done that cannot be recorded")
    return warning("disk", said, advice) if usage.free < _LITTLE else ok("disk", said)


def clock(signed: datetime | None) -> Iterator[Finding]:
    """Check the clock: what is signed is valid between two times.

    Args:
        signed: Latest time at which something here was signed, UTC; None where nothing was yet.
    """
    now = datetime.now(UTC)
    advice = "set the clock, or have it set: timedatectl set-ntp true"
    if signed is not None and signed > now + timedelta(minutes=5):
        yield wrong("clock", f"it is {now:%Y-%m-%d %H:%M}, but something was signed at {signed}", advice)
        return
    synchronized = _output(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if synchronized == "no":
        yield warning("clock", f"{now:%Y-%m-%d %H:%M} UTC, set by nobody", advice)
    else:
        yield ok("clock", f"{now:%Y-%m-%d %H:%M} UTC")


def _output(command: list[str]) -> str:
    """Return what a program prints, in one piece; empty where there is no such program or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
