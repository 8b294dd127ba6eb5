"""The program that makes the sandboxes of cloud and edge, and whether it may."""

import shutil
import subprocess
from collections.abc import Sequence

from fedperfit.protocol.system.errors import InputError

POWERLESS = ("--cap-drop", "ALL", "--new-session", "--die-with-parent")
"""Options without which a sandbox would keep its maker's powers, terminal, or life after its end."""
KERNEL = ("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev")
"""Options that show processes and devices. The kernel's settings are the whole machine's and root's to change
without any power, a program that it starts outside of all sandboxes among them; so they are read-only."""


def program(risk: str) -> str:
    """Find bubblewrap.

    Args:
        risk: What could happen without it, as the end of a sentence.

    Raises:
        InputError: If it is not installed.
    """
    path = shutil.which("bwrap")
    if path is None:
        raise InputError(
            f"bwrap is missing, so {risk}: apt install bubblewrap (or your system's package of it); "
            "--unconfined accepts that"
        )
    return path


def check(trial: Sequence[str], what: str, risk: str) -> None:
    """Run a command in a sandbox, to see whether the system allows it.

    Args:
        trial: Command line that ends at once.
        what: What is to be confined.
        risk: What could happen without a sandbox, as the end of a sentence.

    Raises:
        InputError: If the command fails; with the last line it wrote.
    """
    done = subprocess.run(trial, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else "no reason given"
        raise InputError(
            f"this system does not let {what} be confined ({reason}), so {risk}; --unconfined accepts that"
        )
