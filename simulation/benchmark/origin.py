"""Origin of a benchmark's figures: commit, machine and versions."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = ("fedperfit", "torch", "transformers", "peft", "pyreft", "numpy", "flwr")
"""Libraries whose versions are noted where they are installed."""


def origin(note: str) -> dict[str, Any]:
    """Describe where figures that are measured now come from.

    Args:
        note: What a reader should know beside it, such as other load on the machine.
    """
    return {
        "commit": commit(Path(__file__).resolve().parent),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
        },
        "versions": {"python": platform.python_version()} | _versions(),
        "note": note,
    }


def commit(folder: Path) -> str:
    """Name the commit that a source folder is at.

    Args:
        folder: A folder of the sources.

    Returns:
        The full hash, followed by `+changes` where files differ from it; empty outside a git checkout.
    """
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}+changes" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _versions() -> dict[str, str]:
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return versions
