"""Code run in the sandbox, and the same code run outside of it as the positive control."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.edge.deployment.deployments import settings

from fedperfit.edge.deployment.home import Home
from fedperfit.edge.deployment.supernode import SuperNode
from fedperfit.edge.enrolment.registering import register
from fedperfit.edge.sandbox.confinement import confined
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_atomic, write_json
from fedperfit.protocol.trust.bundle import Bundle


def sandboxed(
    code: str, *arguments: object, shown: Mapping[str, Path], uplink: Path | None = None
) -> list[str]:
    """The command that runs Python code in the sandbox; the test is skipped where there can be none."""
    try:
        return confined([sys.executable, "-c", code, *map(str, arguments)], shown=shown, uplink=uplink)
    except InputError as error:
        pytest.skip(str(error))


def inside(code: str, *arguments: object, shown: Mapping[str, Path], uplink: Path | None = None) -> str:
    """What Python code prints in the sandbox."""
    return _said(sandboxed(code, *arguments, shown=shown, uplink=uplink))


def outside(code: str, *arguments: object) -> str:
    """What the same code prints outside."""
    return _said([sys.executable, "-c", code, *map(str, arguments)])


def _said(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def joined(folder: Path, bundle: Bundle) -> Home:
    """An edge's folder as far as its SuperNode needs it, registered by the cloud; no agent runs."""
    home = Home(folder)
    write_atomic(home.node / "ca.crt", bundle.authority.encode())
    write_json(home.node / "address.json", {"address": bundle.address})
    assert register(bundle, home, "digest", say=print, stopping=lambda: False)
    settings().write(home)
    return home


def unguarded(node: SuperNode) -> list[str]:
    """The command of a SuperNode whose SuperExec finds Flower's own programs, which run the cloud's code."""
    command = node.command()
    command[-1] = command[-1].split("; ", 1)[1]
    return command
